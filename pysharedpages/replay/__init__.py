"""What a trace of conversions does: the state it leads to, and how it got there."""

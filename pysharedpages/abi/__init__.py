"""Conversion ABIs: from bytes or registers to events, and back to the answer that is due.

Each decoder is a pure function. It reads a buffer once, into a copy of its own, so that a guest
that writes to it meanwhile changes nothing; it returns a `Request`:

* `events`, an array of `EVENT_DTYPE` to `apply`, never a page outside of what was asked for;
* `status`, 0 or the platform's own code for what is wrong with the request, which then asks for
  nothing, or for what precedes the fault;
* `answer(...)`, what the guest or the kernel expects back. Where a platform knows partial success,
  it takes `done`, the number of pages of `events` that were converted, in order; all by default.

Whatever the bytes or registers are, a decoder returns, or raises `FormatError` with the byte in
its `offset`, or `RangeError` for gfns from 2^52 on. Guest frame numbers count pages of 4 KiB.
"""

from __future__ import annotations

from pysharedpages.abi import attributes, cca, kvm, lists, pkvm, rmp, sev, snp, tdx, traces
from pysharedpages.abi._request import Request

__all__ = [
    "Request",
    "attributes",
    "cca",
    "kvm",
    "lists",
    "pkvm",
    "rmp",
    "sev",
    "snp",
    "tdx",
    "traces",
]

"""A guest on a real KVM, to migrate: its conversions leave it by `wrmsr`, its writes are KVM's.

It does what `softguest` has its stand-in do, by machine code of its own: it keeps a ledger of its
pages' types and versions in its memory, enciphers private pages under the key of the host it is on,
and converts a page before it writes it under the new type. No confidential hardware is involved:
the key is in the guest's program, where the hardware would have it in the memory controller.

`races` runs the scenarios of `pysharedpages.races` on such guests, one step at a time.

Floor: kvmguest, above softguest, whose workloads, rounds, link and comparison it shares, and races.
"""

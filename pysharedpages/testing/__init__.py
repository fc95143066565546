"""What tests and examples need of a VMM: a small one over a real KVM, and sparse guest memory.

Nothing here is meant for production. No dependency beyond the kernel, x86-64 Linux, and the
standard library.

Floor: testing, above sources and below softguest.
"""

from pysharedpages.testing.machine import MicroVM
from pysharedpages.testing.space import AddressSpace, UnsupportedHostError

__all__ = ["AddressSpace", "MicroVM", "UnsupportedHostError"]

"""Sources of dirty pages: each collects what was written since its last call into a dirty log."""

from pysharedpages.sources.kvm_log import KvmDirtyLog
from pysharedpages.sources.kvm_ring import KvmDirtyRing
from pysharedpages.sources.process_memory import ProcessMemory

__all__ = ["KvmDirtyLog", "KvmDirtyRing", "ProcessMemory"]

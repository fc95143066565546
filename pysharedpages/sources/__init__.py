"""Sources of dirty pages: each collects what was written since its last call into a dirty log."""

from pysharedpages.sources.process_memory import ProcessMemory

__all__ = ["ProcessMemory"]

"""Why a migration does not finish."""

from __future__ import annotations

from pysharedpages._core import PageSet
from pysharedpages.errors import SharedPagesError

__all__ = ["MigrationForbiddenError", "StillDirtyError"]


class MigrationForbiddenError(SharedPagesError):
    """The guest forbids its migration (MSR_KVM_MIGRATION_CONTROL, bit 0, is clear)."""


class StillDirtyError(SharedPagesError):
    """A stopped guest's pages go on getting dirty. `left` has the pages that were not sent."""

    def __init__(self, *args: object, left: PageSet | None = None) -> None:
        super().__init__(*args)
        self.left = PageSet() if left is None else left

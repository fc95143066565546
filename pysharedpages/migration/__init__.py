"""Live migration in the one right order: rounds that send what must be sent, and lose nothing."""

from __future__ import annotations

from pysharedpages.migration.errors import MigrationForbiddenError, StillDirtyError
from pysharedpages.migration.forecast import Forecast
from pysharedpages.migration.interfaces import DirtySource, Tracker
from pysharedpages.migration.migration import Migration
from pysharedpages.migration.notify import changed, changes
from pysharedpages.migration.round import Round, RoundRecord
from pysharedpages.migration.sample import Sample

__all__ = [
    "DirtySource",
    "Forecast",
    "Migration",
    "MigrationForbiddenError",
    "Round",
    "RoundRecord",
    "Sample",
    "StillDirtyError",
    "Tracker",
    "changed",
    "changes",
]

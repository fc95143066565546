# tier: real
"""A real guest that forbids its migration while it boots."""

from __future__ import annotations

import pytest

from pysharedpages import DirtyLog, SharedPages
from pysharedpages.migration import Migration, MigrationForbiddenError
from pysharedpages.testing import MicroVM
from pysharedpages.testing.steps import AllowMigration, Breakpoint, Convert, Write

REASON = MicroVM.available()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

NPAGES = 512
PATIENCE = 60.0
BOOT = [AllowMigration(False), Breakpoint(0), Convert(3), Write(3), AllowMigration(), Breakpoint(1)]


@pytest.mark.parametrize("dirty", ["bitmap", "ring"])
def test_migration_waits_for_the_guest_s_word(dirty: str) -> None:
    with SharedPages(NPAGES) as pages, MicroVM(NPAGES, [BOOT], pages=pages, dirty=dirty) as guest:
        log = DirtyLog(guest.memory)
        migration = Migration(pages, log, [guest.dirty_source(log)])
        guest.start()
        assert guest.wait_until_still(PATIENCE)
        for round_ in migration.rounds(1):
            assert round_.private.tolist() == [[0, NPAGES]]
        with pytest.raises(MigrationForbiddenError):
            next(migration.final())
        guest.vcpus[0].pass_breakpoint()
        assert guest.wait_until_still(PATIENCE)
        for round_ in migration.final():
            assert (round_.shared.tolist(), round_.private.tolist()) == ([[3, 4]], [])
            assert list(round_.rerouted) == [3]
        assert migration.is_finished

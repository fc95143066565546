# tier: model
"""The report against a slow model, page for page: at random, and of migrations gone wrong."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from model import from_set
from verify_model import PRIVATE, SHARED, History, PassRecord
from verify_vmm import FAULTS, MEMORY, MMIO, RAM, Vmm

from pysharedpages import GuestMemory, PageSet, SharedPages, Snapshot
from pysharedpages.verify import Journal, Pass, Report, verify

NAMES = (
    "never_sent",
    "private_sent_shared",
    "shared_sent_private",
    "stale",
    "dropped",
    "outside",
    "wrong_list",
)
# What each fault of a VMM must be found as, if it is found; other findings may come with it.
EXPECTED = {
    "skips a page": {"never_sent", "stale", "dropped"},
    "mistakes a path": {"private_sent_shared", "shared_sent_private"},
    "forgets conversions": {"stale"},
    "forgets those in flight": {"stale"},
    "drops a round": {"dropped", "never_sent"},
    "loses a failed harvest": {"dropped"},
    "lists too early": {"private_sent_shared", "shared_sent_private", "wrong_list", "stale"},
    "lists, then harvests": {"private_sent_shared", "shared_sent_private", "stale"},
    "sends mmio": {"outside"},
    "sends what is dirty only": {"never_sent"},
}


def sets_of(report: Report) -> dict[str, set[int]]:
    """All sets of a report, the empty ones too."""
    return {name: set(getattr(report, name)) for name in NAMES}


def some(rng: Random, most: int = 6) -> set[int]:
    """A few pages of memory and beside it."""
    return {rng.randrange(24) for _ in range(rng.randrange(most))}


class Lockstep:
    """One journal and its model, told the same at random: no VMM would do so, all may happen."""

    def __init__(self, rng: Random, *, by_snapshots: bool) -> None:
        self.rng = rng
        self.tracker = SharedPages(24)
        initial = set() if by_snapshots else some(rng)
        self.journal = Journal() if by_snapshots else Journal(shared=from_set(initial))
        self.by_snapshots = by_snapshots
        self.model = History(initial)
        self.open: tuple[Pass, PassRecord] | None = None
        self.lists: list[tuple[Snapshot, int]] = []

    def convert(self) -> None:
        start = self.rng.randrange(20)
        table = [
            (start, self.rng.randrange(5), self.rng.random() < 0.5)
            for _ in range(self.rng.randrange(4))
        ]
        self.model.converted(table)
        if self.by_snapshots:
            for event in table:
                self.tracker.convert(*event)
        else:
            self.journal.converted(table)

    def list(self) -> None:
        self.lists = [*self.lists[-3:], (self.tracker.snapshot(), self.model.position)]

    def begin(self) -> None:
        if not self.by_snapshots:
            self.open = self.journal.begin(), self.model.begin()
        else:
            if not self.lists or self.rng.random() < 0.7:
                self.list()
            snapshot, position = self.rng.choice(self.lists[-2:])
            self.open = self.journal.begin(snapshot), self.model.begin(position)

    def harvest(self) -> None:
        if self.open is not None:
            pages = some(self.rng)
            self.open[0].harvested(from_set(pages))
            self.open[1].dirty |= pages

    def send(self) -> None:
        if self.open is not None:
            shared = some(self.rng, 16)
            private = some(self.rng, 16) - shared
            self.open[0].sent(from_set(shared), PageSet.from_pages(sorted(private)))
            self.open[1].sent += [(page, SHARED) for page in shared]
            self.open[1].sent += [(page, PRIVATE) for page in private]

    def end(self) -> None:
        if self.open is not None:
            arrived = self.rng.random() < 0.7
            (self.open[0].commit if arrived else self.open[0].abort)()
            self.open[1].arrived = arrived
            self.open = None

    def check(self) -> None:
        self.end()
        memory = GuestMemory([(0, 0, 8), (1, 12, 8)])
        nonzero, destination = some(self.rng, 40), some(self.rng)
        final: PageSet
        if self.by_snapshots:
            final, shared = self.tracker.snapshot(), self.model.shared
        elif self.rng.random() < 0.5:
            final, shared = self.journal.shared, self.model.shared
        else:
            shared = some(self.rng, 40)
            final = PageSet.from_pages(sorted(shared))
        report = verify(
            self.journal,
            final,
            memory=memory,
            nonzero=from_set(nonzero),
            destination=from_set(destination),
        )
        expected = self.model.verdict(shared, set(memory.pages()), nonzero, destination)
        assert sets_of(report) == expected


@pytest.mark.parametrize("by_snapshots", [False, True], ids=["events", "snapshots"])
def test_random_journals(by_snapshots: bool, seed: int, scale: float) -> None:
    for number in range(max(1, round(150 * scale))):
        rng = Random(f"{seed} {number} {by_snapshots}")
        pair = Lockstep(rng, by_snapshots=by_snapshots)
        steps = (pair.convert, pair.list, pair.begin, pair.harvest, pair.send, pair.send, pair.end)
        for _ in range(rng.randrange(60)):
            rng.choice(steps)()
            if rng.random() < 0.05:
                pair.check()
        pair.check()


def judged(vmm: Vmm) -> Report:
    """The report by events, after checking that by snapshots and the model say the same."""
    guest = vmm.guest
    nonzero = {page for page, content in guest.content.items() if content}
    expected = vmm.history.verdict(guest.shared, RAM, nonzero, vmm.destination)
    reports = [
        verify(
            journal,
            final,
            memory=MEMORY,
            nonzero=lambda pages: PageSet.from_pages(sorted(nonzero & set(pages))),
            destination=from_set(vmm.destination),
        )
        for journal, final in (
            (vmm.by_events, PageSet.from_pages(sorted(guest.shared))),
            (vmm.by_snapshots, vmm.tracker.snapshot()),
        )
    ]
    for report in reports:
        assert sets_of(report) == expected
    return reports[0]


def test_a_right_migration_is_never_accused(seed: int, scale: float) -> None:
    for number in range(max(1, round(60 * scale))):
        vmm = Vmm(Random(f"{seed} {number}"), None)
        vmm.migrate()
        assert not vmm.guest.corrupt()
        assert judged(vmm).is_clean
    assert vmm.guest.shared & MMIO or number < 5, "no MMIO was converted"


@pytest.mark.parametrize("fault", FAULTS)
def test_every_page_that_a_fault_spoils_is_found(fault: str, seed: int, scale: float) -> None:
    spoiled, seen = 0, Counter[str]()
    for number in range(max(10, round(40 * scale))):
        vmm = Vmm(Random(f"{seed} {number} {fault}"), fault)
        vmm.migrate()
        report = judged(vmm)
        corrupt = vmm.guest.corrupt()
        wrong_list = vmm.destination != vmm.guest.shared
        assert corrupt <= set(report.pages), fault
        assert not wrong_list or report.wrong_list
        assert not report.is_clean or not vmm.injected - vmm.sent_again
        spoiled += bool(corrupt or wrong_list)
        seen.update(finding.name for finding in report.findings)
    assert spoiled or fault == "sends mmio", "the fault did no harm in any run"
    assert seen.keys() & EXPECTED[fault], seen

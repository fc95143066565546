"""What was found: the pages of each fault, what it means to the guest, and the rule to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pysharedpages._core import PageSet
from pysharedpages.units import format_bytes

__all__ = ["Finding", "Report"]

_SHOWN_RANGES: Final = 4
_LISTED_RANGES: Final = 64

# Field of a report -> (what the pages are, what it means to the guest, what to look at). The rules
# R0 to R4 are those of live migration: harvest (D), then list (L), then merge with conversions.
_MEANING: Final = {
    "never_sent": (
        "holding data, never sent",
        "the guest finds zeros there, or garbage",
        "R0: a dirty log starts empty, so the first pass sends all of memory unless every source"
        " is complete",
    ),
    "private_sent_shared": (
        "private at the stop, last sent as plain bytes",
        "ciphertext of this host's key arrived: garbage",
        "R2: harvest, then list; read the last list after the vCPUs have stopped",
    ),
    "shared_sent_private": (
        "shared at the stop, last sent through the platform",
        "they lie under the destination's key: garbage",
        "R2: harvest, then list; read the last list after the vCPUs have stopped",
    ),
    "stale": (
        "converted after the list that they were last sent by",
        "the guest finds what it held before, or what the platform made of it",
        "R4: what was converted since the last pass that arrived is sent again, also while in"
        " flight, and also if it flipped twice: merge(dirty, since=previous)",
    ),
    "dropped": (
        "of a pass that failed or left them out, not sent since",
        "the guest finds an older page, or none",
        "a harvest is the only copy: abort it if the pass fails, and keep the older list as since",
    ),
    "outside": (
        "sent, and no memory",
        "MMIO was read here, or written there",
        "R4: converted MMIO is not sent: merge(..., memory=memory)",
    ),
    "wrong_list": (
        "shared at the stop or in the destination's list, not both",
        "the destination takes them for what they are not, and its next migration sends them so",
        "set_list() the list that was read after the vCPUs had stopped, all of it",
    ),
}


@dataclass(frozen=True)
class Finding:
    """One kind of fault: its name as in `Report`, the pages, and what to make of them."""

    name: str
    pages: PageSet
    what: str
    meaning: str
    rule: str


@dataclass(frozen=True)
class Report:
    """What `verify` found. The sets may overlap; only `outside` and `wrong_list` leave memory.

    * `never_sent`: holding data, never sent, or by failed passes alone
    * `private_sent_shared`, `shared_sent_private`: last sent on the path that is not theirs at the
      stop; `wrong_path` is both
    * `stale`: last sent by a list older than their last conversion
    * `dropped`: promised by a pass, or of a failed one, and not sent since
    * `outside`: sent at least once and, at their last sending, no memory
    * `wrong_list`: in which the destination's list differs; None if it was not given
    """

    passes: int
    failed_passes: int
    sent_pages: int
    page_size: int
    never_sent: PageSet
    private_sent_shared: PageSet
    shared_sent_private: PageSet
    stale: PageSet
    dropped: PageSet
    outside: PageSet
    wrong_list: PageSet | None

    @property
    def wrong_path(self) -> PageSet:
        """Pages whose last sending was on the path that is not theirs at the stop."""
        return self.private_sent_shared | self.shared_sent_private

    @property
    def pages(self) -> PageSet:
        """Every page that something was found of."""
        found = PageSet()
        for finding in self.findings:
            found |= finding.pages
        return found

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found, nothing that is empty among it."""
        found = []
        for name, texts in _MEANING.items():
            pages: PageSet | None = getattr(self, name)
            if pages:
                found.append(Finding(name, pages, *texts))
        return tuple(found)

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def as_dict(self) -> dict[str, object]:
        """The report in plain types, for JSON: of each set the sizes and the first 64 ranges."""
        sets: dict[str, PageSet | None] = {name: getattr(self, name) for name in _MEANING}
        return {
            "schema": "pysharedpages.verify/1",
            "clean": self.is_clean,
            "passes": self.passes,
            "failed_passes": self.failed_passes,
            "sent_pages": self.sent_pages,
            "page_size": self.page_size,
            "findings": {name: _listed(pages) for name, pages in sets.items()},
        }

    def __str__(self) -> str:
        """A line that sums up, and two for each finding: which pages, and what to make of it."""
        count = len(self.findings)
        verdict = _count(count, "finding", "s") if count else "clean"
        lines = [
            f"{verdict}: {_count(self.passes, 'pass', 'es')}, {self.failed_passes} failed;"
            f" {self._sized(self.sent_pages)} sent"
        ]
        if self.wrong_list is None:
            lines[0] += "; the destination's list was not looked at"
        for finding in self.findings:
            lines.append(f"{finding.what}: {self._sized(len(finding.pages))} {_shown(finding)}")
            lines.append(f"    {finding.meaning}. {finding.rule}")
        return "\n".join(lines)

    def _sized(self, npages: int) -> str:
        return f"{_count(npages, 'page', 's')} ({format_bytes(npages * self.page_size)})"


def _count(number: int, noun: str, plural: str) -> str:
    return f"{number:,} {noun}{plural * (number != 1)}"


def _first(pages: PageSet, most: int) -> NDArray[np.uint64]:
    for batch in pages.iter_ranges(most):
        return batch
    return np.empty((0, 2), np.uint64)


def _shown(finding: Finding) -> str:
    pages = finding.pages
    first = [f"[{start:#x}, {stop:#x})" for start, stop in _first(pages, _SHOWN_RANGES).tolist()]
    more = pages.nranges - len(first)
    return " ".join(first) + (f" and {more:,} ranges more" if more else "")


def _listed(pages: PageSet | None) -> dict[str, object] | None:
    if pages is None:
        return None
    return {
        "pages": len(pages),
        "ranges": pages.nranges,
        "first": _first(pages, _LISTED_RANGES).tolist(),
    }

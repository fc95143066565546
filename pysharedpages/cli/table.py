"""The outcome of a migration, as a table and one sentence of evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pysharedpages.testing.space import PAGE_SIZE
from pysharedpages.units import format_bytes

if TYPE_CHECKING:
    from pysharedpages.softguest.report import Report

__all__ = ["print_table"]


def print_table(report: Report) -> None:
    """Print the outcome to stdout; needs rich."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    scenario = report.scenario
    in_use = format_bytes(scenario.resident_pages * PAGE_SIZE)
    memory = format_bytes(scenario.memory_pages * PAGE_SIZE)
    table = Table(
        title=f"{scenario.workload}: {in_use} in use of {memory}, {scenario.order}",
        caption=_source(report),
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
    )
    table.add_column("round\n", no_wrap=True)
    for heading in ("dirty\npages", "converted\npages", "sent\nshared", "sent\nprivate"):
        table.add_column(heading, justify="right", no_wrap=True)
    measured = all(row.ioctl_us is not None for row in report.rounds)
    times = ("harvest", *(("ioctl",) if measured else ()), "snapshot", "merge")
    for name in times:
        table.add_column(f"{name}\n", justify="right", no_wrap=True)
    for number, row in enumerate(report.rounds, 1):
        counts = (row.dirty, row.converted, row.sent_shared, row.sent_private)
        microseconds = [getattr(row, f"{name}_us") for name in times]
        table.add_row(
            "final" if row.final else str(number),
            *(f"{count:,}" for count in counts),
            *(_shown(time) for time in microseconds),
        )
    console = Console(highlight=False)
    style = "green" if report.verdict == "intact" else "bold red"
    verdict = Text.assemble((report.verdict, style), f": {_evidence(report)}")
    # Printed by us: on a closed pipe rich itself would exit, with the code of a failed check.
    with console.capture() as shown:
        console.print(table)
        console.print(verdict, soft_wrap=True)
    print(shown.get(), end="")


def _evidence(report: Report) -> str:
    """Why the verdict is what it is, in one sentence."""
    comparison = report.comparison
    compared = f"{comparison.pages_compared:,} pages compared through both hosts' keys"
    if not comparison.pages_compared:
        return "nothing was compared"
    if comparison.differing:
        first = ", ".join(f"{gfn:#x}" for gfn in comparison.differing[:4])
        more = ", ..." if len(comparison.differing) > 4 else ""
        lists = "" if comparison.list_equal else "; the list of shared pages differs too"
        return f"{compared}, {len(comparison.differing):,} differ (gfn {first}{more}){lists}"
    if not comparison.list_equal:
        return f"{compared}, none differs, but the list of shared pages does"
    resumption = report.resumption
    if resumption is not None and not resumption.comparison.is_equal:
        return f"{compared}, none differs, but the guest did not go on there as it should"
    if not report.converted_meanwhile:
        return f"{compared}, none differs, but nothing was converted while rounds ran"
    resumed = f"; it went on there for {resumption.steps:,} steps" if resumption else ""
    return (
        f"{compared}, none differs; {report.converted_meanwhile:,} conversions while rounds ran; "
        f"the list of shared pages is the guest's own{resumed}"
    )


def _shown(microseconds: float) -> str:
    """A time in at most three digits."""
    if microseconds < 999.5:
        return f"{microseconds:.3g}us"
    if microseconds < 999_500:
        return f"{microseconds / 1000:.3g}ms"
    return f"{microseconds / 1e6:.3g}s"


def _source(report: Report) -> str:
    log = {"bitmap": ", KVM_GET_DIRTY_LOG", "ring": ", dirty rings", None: ""}[report.log]
    return f"source {report.source}{log}: {report.source_reason}"

"""`pysharedpages migrate`: migrate a live software guest, and show whether it arrived."""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from pysharedpages.cli.exits import CannotRunError, Exit, UsageError
from pysharedpages.errors import RangeError, SharedPagesError
from pysharedpages.softguest.scenario import ENGINES, LIST_THEN_DIRTY, ORDERS, SOURCES, Scenario
from pysharedpages.softguest.space import PAGE_SIZE, UnsupportedHostError
from pysharedpages.softguest.workload import WORKLOADS
from pysharedpages.units import format_bytes, parse_pages

if TYPE_CHECKING:
    from rich.progress import Progress

    from pysharedpages.softguest.migration import Report
    from pysharedpages.softguest.rounds import Observer

__all__ = ["add_parser", "run"]

_EXTRA: Final = ("cryptography", "rich")

_DESCRIPTION: Final = """\
Migrate a live guest made of software from one host to another, within this process.

The guest's writes are real memory writes, its conversions reach the tracker while it runs, and
its private pages are ciphertext under a key of the host they lie on: a page sent on the wrong
path arrives as garbage. After some rounds with the guest running and one with it stopped, every
page it ever wrote is read on both hosts and compared."""

_EPILOG: Final = """\
exit codes: 0 the guest arrived intact; 1 a page or the list of shared pages differs, or nothing
was compared or converted; 2 usage; 3 this host cannot"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-parser of this command."""
    parser = commands.add_parser(
        "migrate",
        help="migrate a live software guest and compare every page",
        description=_DESCRIPTION,
        epilog=_EPILOG + "\n\nworkloads:\n" + _workloads(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option(
        "--memory",
        type=_pages,
        default="1TiB",
        metavar="SIZE",
        help="the guest's address space, sparse (default: %(default)s)",
    )
    option(
        "--resident",
        type=_pages,
        default="256MiB",
        metavar="SIZE",
        help="how much of it is in use (default: %(default)s)",
    )
    option(
        "--workload",
        choices=tuple(WORKLOADS),
        default="boot",
        help="what the guest does meanwhile (default: %(default)s)",
    )
    option(
        "--rounds",
        type=int,
        default=5,
        metavar="N",
        help="rounds with the guest running, before the final one (default: %(default)s)",
    )
    option(
        "--order",
        choices=ORDERS,
        default=ORDERS[0],
        help=f"harvest, then list; or, to see what breaks, {LIST_THEN_DIRTY}",
    )
    option(
        "--source",
        choices=SOURCES,
        help="what finds the writes: the kernel's tracking of this process, or a dirty log "
        "that the guest keeps (default: process where this host can)",
    )
    option(
        "--engine",
        choices=ENGINES,
        default=ENGINES[0],
        help="how the tracker keeps its set (default: %(default)s)",
    )
    option(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="picks keys, contents and steps (default: %(default)s)",
    )
    option("--json", action="store_true", help="print one JSON object instead of the table")
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> Exit:
    """Migrate as the options say and print the outcome."""
    scenario = _scenario(options)
    _require_extra()
    from pysharedpages.softguest.migration import migrate

    try:
        with _progress() as observer:
            report = migrate(scenario, observer)
    except UnsupportedHostError as error:
        raise CannotRunError(str(error)) from error
    if options.json:
        print(json.dumps(report.as_dict(), indent=2))
    else:
        _print_table(report)
    return Exit.DONE if report.verdict == "intact" else Exit.CHECK_FAILED


def _scenario(options: argparse.Namespace) -> Scenario:
    try:
        return Scenario(
            memory_pages=options.memory,
            resident_pages=options.resident,
            order=options.order,
            workload=options.workload,
            engine=options.engine,
            seed=options.seed,
            rounds=options.rounds,
            source=options.source,
        )
    except RangeError as error:
        raise UsageError(str(error)) from error


def _pages(text: str) -> int:
    try:
        return parse_pages(text, PAGE_SIZE)
    except SharedPagesError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _workloads() -> str:
    return "\n".join(f"  {name:<9}{workload.summary}" for name, workload in WORKLOADS.items())


def _require_extra() -> None:
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise CannotRunError(
            f"migrate needs {' and '.join(missing)}: pip install 'pysharedpages[cli]'"
        )


@contextmanager
def _progress() -> Iterator[Observer | None]:
    """A progress bar on stderr, if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("pages"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bar(progress)


class _Bar:
    """Draws one bar, that of the current phase."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None)

    def phase(self, name: str, npages: int) -> None:
        self._progress.reset(self._task, description=name, total=npages)

    def advance(self, npages: int) -> None:
        self._progress.advance(self._task, npages)


def _print_table(report: Report) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    scenario = report.scenario
    in_use = format_bytes(scenario.resident_pages * PAGE_SIZE)
    memory = format_bytes(scenario.memory_pages * PAGE_SIZE)
    table = Table(
        title=f"{scenario.workload}: {in_use} in use of {memory}, {scenario.order}",
        caption=f"source {report.source}: {report.source_reason}",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("round\n", no_wrap=True)
    for heading in ("dirty\npages", "converted\npages", "sent\nshared", "sent\nprivate"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("harvest\nus", "snapshot\nus", "merge\nus"):
        table.add_column(heading, justify="right", no_wrap=True)
    for number, row in enumerate(report.rounds, 1):
        counts = (row.dirty, row.converted, row.sent_shared, row.sent_private)
        times = (row.harvest_us, row.snapshot_us, row.merge_us)
        table.add_row(
            "final" if row.final else str(number),
            *(f"{count:,}" for count in counts),
            *(f"{time:,.1f}" if time < 100 else f"{time:,.0f}" for time in times),
        )
    console = Console(highlight=False)
    console.print(table)
    style = "green" if report.verdict == "intact" else "bold red"
    console.print(Text.assemble((report.verdict, style), f": {_evidence(report)}"), soft_wrap=True)


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
    if not report.converted_meanwhile:
        return f"{compared}, none differs, but nothing was converted while rounds ran"
    return (
        f"{compared}, none differs; {report.converted_meanwhile:,} conversions while rounds ran; "
        "the list of shared pages is the guest's own"
    )

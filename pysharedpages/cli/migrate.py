"""`pysharedpages migrate`: migrate a live guest, and show whether it arrived."""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from pysharedpages.cli.exits import CannotRunError, Exit, UsageError
from pysharedpages.cli.table import print_table
from pysharedpages.errors import RangeError, SharedPagesError
from pysharedpages.softguest.scenario import (
    ENGINES,
    LIST_THEN_DIRTY,
    LOGS,
    ORDERS,
    SOURCES,
    Scenario,
)
from pysharedpages.softguest.workload import WORKLOADS
from pysharedpages.testing.space import PAGE_SIZE, UnsupportedHostError
from pysharedpages.units import parse_pages

if TYPE_CHECKING:
    from rich.progress import Progress

    from pysharedpages.softguest.report import Report
    from pysharedpages.softguest.rounds import Observer

__all__ = ["add_parser", "run"]

_EXTRA: Final = ("cryptography", "rich")

_DESCRIPTION: Final = """\
Migrate a live guest from one host to another, within this process.

Where /dev/kvm runs guests it is one: its writes come from KVM's dirty log, its conversions leave it
by wrmsr, and it goes on in a second VM. Else it is made of software, over real memory. Its
conversions reach the tracker while it runs, and its private pages are ciphertext under a key of the
host they lie on: a page sent on the wrong path arrives as garbage. After some rounds with the guest
running and one with it stopped, every page it ever wrote is read on both hosts and compared."""

_EPILOG: Final = """\
exit codes: 0 the guest arrived intact; 1 a page or the list of shared pages differs, or nothing
was compared or converted; 2 usage; 3 this host cannot"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-parser of this command."""
    parser = commands.add_parser(
        "migrate",
        help="migrate a live guest and compare every page",
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
        help="the guest and what finds its writes: a KVM guest and KVM's dirty log, or one of "
        "software and the kernel's tracking of this process or a log the guest keeps itself "
        "(default: the first that this host can)",
    )
    option(
        "--log",
        choices=LOGS,
        help=f"KVM's dirty log: a bitmap a slot or a ring a vCPU (default: {LOGS[0]})",
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
    try:
        with _progress() as observer:
            report = _migrate(scenario, observer)
    except RangeError as error:
        raise UsageError(str(error)) from error
    except SharedPagesError as error:
        raise CannotRunError(str(error)) from error
    # Whoever stops reading still learns the verdict: from the exit code.
    with suppress(BrokenPipeError):
        if options.json:
            print(json.dumps(report.as_dict(), indent=2))
        else:
            print_table(report)
    return Exit.DONE if report.verdict == "intact" else Exit.CHECK_FAILED


def _migrate(scenario: Scenario, observer: Observer | None) -> Report:
    """With a KVM guest where that is asked for, or where nothing is and one can be had."""
    from pysharedpages.kvmguest import migration as kvm
    from pysharedpages.softguest import migration as software

    if scenario.source not in ("kvm", None):
        return software.migrate(scenario, observer)
    try:
        return kvm.migrate(scenario, observer)
    except (UnsupportedHostError, RangeError) as error:
        if scenario.source or scenario.log:
            raise type(error)(f"--source kvm: {error}") from error
        return software.migrate(scenario, observer, because=f"no KVM guest: {error}")


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
            log=options.log,
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

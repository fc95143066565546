"""`pysharedpages replay`: what a trace of conversions does."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np

from pysharedpages._core import PageSet
from pysharedpages.abi.traces import NO_TIME, TraceReader
from pysharedpages.cli.exits import CannotRunError, Exit, UsageError
from pysharedpages.cli.replay_text import text_of
from pysharedpages.errors import FormatError, RangeError
from pysharedpages.io import save
from pysharedpages.io.replacing import replace_file
from pysharedpages.replay.opening import MissingDecoderError, Trace, open_trace
from pysharedpages.replay.replay import Moment, Replay
from pysharedpages.replay.report import Report, report_of

__all__ = ["add_parser", "run"]

_DESCRIPTION: Final = """\
Apply the conversions of a trace to a tracker, and show what they did.

Traces are text: QEMU's log, ftrace, trace-cmd report, perf script, each with its own timestamps,
mixed with any other lines. Plain, gzip or Zstandard is told by content; - is standard input."""

_EPILOG: Final = """\
exit codes: 0 done; 1 a line is malformed, or compressed data are damaged; 2 usage; 3 this host
cannot. --save writes what pysharedpages.io.load reads, a Puffin file with a deletion vector; under
a name that ends in .npy it is the ranges, of shape (n, 2) and dtype uint64, for numpy.load."""

_SECONDS: Final = re.compile(r"(\+?)([0-9]{1,10})(?:\.([0-9]{1,9}))?", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_END_OF_TIME: Final = 1 << 62
_LONG: Final = 1 << 23
"""Bytes from which a file gets a progress bar."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-parser of this command."""
    parser = commands.add_parser(
        "replay",
        help="show what a trace of conversions does",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("file", metavar="FILE", help="the trace, or - for standard input")
    option(
        "--at",
        type=_moment,
        metavar="TIME",
        help="show the state at a time: seconds of the trace's clock, +seconds after its first "
        "conversion, or a date such as 2026-11-22T18:00:00Z",
    )
    option("--save", metavar="FILE", help="save the shared pages")
    option(
        "--initial",
        choices=("private", "shared"),
        default="private",
        help="what every page is before the trace (default: %(default)s)",
    )
    option(
        "--top",
        type=_count,
        default=10,
        metavar="N",
        help="how many ranges to list, and pages that flip most (default: %(default)s)",
    )
    option(
        "--skip-malformed",
        action="store_true",
        help="count malformed lines and go on, instead of stopping at the first",
    )
    option("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> Exit:
    """Replay as the options say and print what happened."""
    reader = TraceReader(malformed="skip" if options.skip_malformed else "raise")
    replay = Replay(initial=options.initial, until=options.at)
    try:
        with open_trace(options.file) as trace:
            _replay(trace, reader, replay)
    except FormatError as error:
        print(f"pysharedpages: {options.file}: {error}", file=sys.stderr)
        return Exit.CHECK_FAILED
    except MissingDecoderError as error:
        raise CannotRunError(str(error)) from error
    except OSError as error:
        raise UsageError(f"cannot read {options.file}: {error.strerror}") from error
    if options.at is not None and replay.tallies and replay.newest_time == NO_TIME:
        raise UsageError(f"--at: no conversion in {options.file} carries a time")
    report = report_of(replay, reader, options.top)
    if options.save is not None:
        _save(report, Path(options.save))
    _show(report, options)
    for line_error in reader.errors:
        print(f"pysharedpages: {options.file}: skipped: {line_error}", file=sys.stderr)
    return Exit.DONE


def _replay(trace: Trace, reader: TraceReader, replay: Replay) -> None:
    with _progress(trace) as advance:
        while not replay.reached and (data := trace.read()):
            replay.apply(reader.feed(data))
            advance()
    if not replay.reached:
        replay.apply(reader.finish())


@contextmanager
def _progress(trace: Trace) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr, if that is a terminal, the trace is long and rich is there."""
    short = trace.size is not None and trace.size < _LONG
    if short or not sys.stderr.isatty() or importlib.util.find_spec("rich") is None:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("replay"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("replay", total=trace.size)
        yield lambda: progress.update(task, completed=trace.position)


def _show(report: Report, options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps({"file": options.file} | report.as_dict(), indent=2))
        return
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    name = options.file.encode(encoding, "backslashreplace").decode(encoding)
    for line in text_of(report, name, unicode=encoding.lower().startswith("utf")):
        print(line)


def _save(report: Report, path: Path) -> None:
    """Save the pages as the name of the file says; a failure leaves what was there."""
    try:
        if Path(os.path.realpath(path)).suffix == ".npy":
            array = BytesIO()
            np.save(array, report.ranges)
            replace_file(path, [array.getvalue()])
        else:
            save(path, PageSet.from_ranges(report.ranges))
    except OSError as error:
        raise CannotRunError(f"cannot save {path}: {error.strerror or error}") from error
    except RangeError as error:
        raise CannotRunError(f"cannot save {path}: {error}") from error


def _moment(text: str) -> Moment:
    match = _SECONDS.fullmatch(text)
    if match is not None:
        sign, seconds, fraction = match.groups()
        moment = Moment(int(seconds) * 10**9 + int((fraction or "").ljust(9, "0")), bool(sign))
    else:
        moment = Moment(_date(text))
    if not 0 <= moment.nanoseconds < _END_OF_TIME:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 2^62 nanoseconds")
    return moment


def _date(text: str) -> int:
    """Nanoseconds from 1970 to a date, UTC where it says no zone."""
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give seconds or a date") from None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return (date - _EPOCH) // timedelta(microseconds=1) * 1000


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is no count from 0 to 999,999")
    return int(text)

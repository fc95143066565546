"""The text that `pysharedpages replay` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pysharedpages.replay.report import Report
from pysharedpages.replay.timeline import Strip
from pysharedpages.units import format_bytes

__all__ = ["text_of"]

_PAGE: Final = 4096
_BLOCKS: Final = " \u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
_ASCII_BLOCKS: Final = " .:-=+*#@"


def text_of(report: Report, name: str, *, unicode: bool) -> Iterator[str]:
    """The lines of the report on the trace `name`; without `unicode`, ASCII alone."""
    converting = sum(row.lines for row in report.conversions)
    yield f"{name}: {report.lines:,} lines, {converting:,} conversions"
    yield from _other_lines(report)
    yield from _conversions(report)
    yield from _state(report)
    if report.timeline is not None:
        yield from _timeline(report.timeline, _BLOCKS if unicode else _ASCII_BLOCKS)
    yield from _flips(report)


def _other_lines(report: Report) -> Iterator[str]:
    if report.malformed:
        yield f"  {report.malformed:,} malformed lines skipped"
    for refused in report.refused:
        yield f"  {refused.lines:,} x {refused.origin} refused: {refused.reason}"
    for slot, count in report.dirty_reports.items():
        yield f"  {count:,} x a page of slot {slot} reported dirty"
    for change, count in report.block_changes.items():
        yield f"  {count:,} x a range of a RAM block from {change}"
    if report.migration_allowed is not None:
        yield f"  the guest {'allows' if report.migration_allowed else 'forbids'} migration"


def _conversions(report: Report) -> Iterator[str]:
    if not report.conversions:
        return
    yield ""
    yield f"  {'conversions':<32}{'to':<9}{'lines':>11}{'pages':>18}{'changed':>18}"
    for row in report.conversions:
        yield f"  {row.origin:<32}{row.to:<9}{row.lines:>11,}{row.pages:>18,}{row.changed:>18,}"


def _state(report: Report) -> Iterator[str]:
    pages = f"{report.shared_pages:,} pages ({format_bytes(report.shared_pages * _PAGE)})"
    yield ""
    when = "" if report.last_time is None else f" at {_seconds(report.last_time)} s"
    yield f"after the last conversion{when}: {pages} shared, in {report.range_count:,} ranges"
    for start, stop in report.largest_ranges:
        size = format_bytes((stop - start) * _PAGE)
        yield f"  {start:#15x} - {stop:#15x} {stop - start:>18,} {size:>10}"
    left = report.range_count - len(report.largest_ranges)
    if left:
        yield f"  and {left:,} smaller ones"


def _timeline(strip: Strip, blocks: str) -> Iterator[str]:
    yield ""
    if strip.axis == "time":
        yield f"timeline, {_seconds(strip.first)} s to {_seconds(strip.last)} s"
    else:
        yield f"timeline, line {strip.first:,} to {strip.last:,}"
    for label, values in (("conversions", strip.conversions), ("shared", strip.shared)):
        yield f"  {label:<12}|{_bars(values, blocks)}| most {max(values):,}"


def _bars(values: list[int], blocks: str) -> str:
    """One character a value: blank is zero, and anything above it is seen."""
    most = max(values)
    levels = len(blocks) - 1
    return "".join(blocks[-(-value * levels // most) if most else 0] for value in values)


def _flips(report: Report) -> Iterator[str]:
    if not report.most_flipped:
        return
    yield ""
    yield "pages that flip most"
    for start, stop, flips in report.most_flipped:
        pages = f"{stop - start:,} pages" if stop - start > 1 else "1 page"
        yield f"  {start:#15x}  {flips:>9,} x  {pages}"


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09d}"

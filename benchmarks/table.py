"""Prints the record of a benchmark run as one table: `python benchmarks/table.py bench.json`.

A row is a job of ours beside one rival. "1.4 of it" is ours / rival, for the machine's own limits
and where a target bounds ours by a rival's figure; "30 x" is rival / ours: how much better ours is.

Several records are runs of the same: each row is then that of the run with the median ratio, the
least and the greatest in brackets, and the median is what meets a target or misses it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

HEAD: Final = ("what", "ours", "rival", "rival's", "ratio", "target", "met")
RIGHT: Final = {1, 3, 4}
SCALES: Final = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")),
    "bytes": ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
}
Table: TypeAlias = list[tuple[str, ...]]
MET: Final = {True: "yes", False: "NO", None: ""}


def main(arguments: list[str]) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="A benchmark run, or several, as one table.")
    parser.add_argument("--markdown", action="store_true", help="as a Markdown table")
    parser.add_argument("--targets", action="store_true", help="only rows that have a target")
    parser.add_argument("runs", nargs="+", type=Path, metavar="bench.json")
    options = parser.parse_args(arguments)
    records = [json.loads(path.read_text(encoding="utf-8")) for path in options.runs]
    layout = markdown if options.markdown else aligned
    rows = merged([rows_of(record["benchmarks"]) for record in records])
    if options.targets:
        rows = [row for row in rows if row.met is not None]
    print("\n".join(report(heading(records), rows, layout)))
    return 0


@dataclass(frozen=True)
class Row:
    """A job beside one rival, or by itself; `spread` is the least and the greatest of `value`."""

    place: tuple[str, int]
    what: str
    unit: str
    ours: float
    most: float | None
    rival: dict[str, Any] | None
    met: bool | None
    spread: tuple[float, float] | None = None

    @property
    def value(self) -> float:
        """What runs are compared by: the ratio, or where there is none the figure itself."""
        ratio = self.rival["ratio"] if self.rival else None
        return self.ours if ratio is None else float(ratio)

    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        ours = figure(self.ours, self.unit)
        if self.rival is None:
            if self.spread:
                least, greatest = (figure(value, self.unit) for value in self.spread)
                ours = f"{ours} ({least} to {greatest})"
            target = "" if self.most is None else f"<= {figure(self.most, self.unit)}"
            return self.what, ours, "", "", "", target, MET[self.met]
        its = figure(self.rival["figure"], self.unit)
        of = ratio(self.rival, self.spread)
        return self.what, ours, self.rival["name"], its, of, bounded(self.rival), MET[self.met]


def rows_of(benchmarks: list[dict[str, Any]]) -> list[Row]:
    """The rows of a run: of each job its own target, then each rival."""
    rows = []
    for entry in benchmarks:
        info = entry["extra_info"]
        if "what" not in info:
            continue
        alone = info["most"] is not None or not info["rivals"]
        rivals = [*([None] if alone else []), *info["rivals"]]
        for at, rival in enumerate(rivals):
            met = info["met"] if rival is None else rival["met"]
            place = entry["fullname"], at
            same = info["what"], info["unit"], info["ours"], info["most"]
            rows.append(Row(place, *same, rival, met))
    return rows


def merged(runs: Sequence[list[Row]]) -> list[Row]:
    """One row of each place, in the order of their first appearance."""
    places: dict[tuple[str, int], list[Row]] = {}
    for row in (row for run in runs for row in run):
        places.setdefault(row.place, []).append(row)
    return [median(rows) for rows in places.values()]


def median(rows: list[Row]) -> Row:
    """The row with the median value; of an even number the lower one."""
    ordered = sorted(rows, key=lambda row: row.value)
    middle = ordered[(len(ordered) - 1) // 2]
    if len(ordered) == 1:
        return middle
    return replace(middle, spread=(ordered[0].value, ordered[-1].value))


def heading(records: list[dict[str, Any]]) -> str:
    """When and where it was run."""
    infos = [entry["extra_info"] for record in records for entry in record["benchmarks"]]
    days = {record["datetime"][:10] for record in records}
    hosts = {
        f"{info['cpu']}, {info['kernels']} kernels, {info['profile']}"
        for info in infos
        if "what" in info
    }
    runs = f"medians of {len(records)} runs (least to greatest)" if len(records) > 1 else "one run"
    return "; ".join([", ".join(sorted(days)), *sorted(hosts), runs])


def report(head: str, rows: list[Row], layout: Callable[[Table], Iterator[str]]) -> Iterator[str]:
    """The lines of the table, with where it was run above and the targets counted below."""
    yield head
    yield ""
    yield from layout([HEAD, *(row.cells() for row in rows)])
    yield ""
    judged = [row.met for row in rows if row.met is not None]
    yield f"{len(judged)} targets: {judged.count(True)} met, {judged.count(False)} missed"


def figure(value: float, unit: str) -> str:
    """A figure in the largest unit that it reaches."""
    scales = SCALES.get(unit, ((1.0, unit),))
    size, name = next((scale for scale in scales if value >= scale[0]), scales[-1])
    return f"{value / size:.3g} {name}"


def ratio(rival: dict[str, Any], spread: tuple[float, float] | None) -> str:
    """A ratio with its sense; nothing where there is nothing to divide by."""
    if rival["ratio"] is None:
        return ""
    text = f"{short(rival['ratio'])} {'of it' if rival['multiple'] else 'x'}"
    return f"{text} ({short(spread[0])} to {short(spread[1])})" if spread else text


def short(value: float) -> str:
    """A number of three digits, or of all before the point."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def bounded(rival: dict[str, Any]) -> str:
    """A rival's target."""
    if rival["most"] is not None:
        return f"<= {rival['most']:g} of it"
    return "" if rival["least"] is None else f">= {rival['least']:g} x"


def without_repeats(table: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """The rows; the job and our figure are left blank where they are those of the row above."""
    above: tuple[str, ...] = ()
    for row in table:
        yield ("", "", *row[2:]) if row[:2] == above else row
        above = row[:2]


def aligned(table: Table) -> Iterator[str]:
    """The rows in columns."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in without_repeats(table):
        yield "  ".join(
            cell.rjust(width) if at in RIGHT else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()


def markdown(table: Table) -> Iterator[str]:
    """The rows as Markdown."""
    head, *rows = without_repeats(table)
    for row in (head, tuple("--:" if at in RIGHT else "---" for at in range(len(head))), *rows):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

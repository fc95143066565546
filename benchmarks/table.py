"""Prints the record of a benchmark run as one table: `python benchmarks/table.py bench.json`.

A row is a job of ours beside one rival. "1.4 of it" is ours / rival, for the machine's own limits
and where a target bounds ours by a rival's figure; "30 x" is rival / ours: how much better ours is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

HEAD: Final = ("what", "ours", "rival", "rival's", "ratio", "target", "met")
RIGHT: Final = {1, 3, 4}
SCALES: Final = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")),
    "bytes": ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
}
MET: Final = {True: "yes", False: "NO", None: ""}


def main(arguments: list[str]) -> int:
    """Prints the table of each file; 2 without a file."""
    if not arguments:
        print("usage: table.py bench.json ...", file=sys.stderr)
        return 2
    for name in arguments:
        record = json.loads(Path(name).read_text(encoding="utf-8"))
        print("\n".join(report(record["benchmarks"])))
    return 0


def report(benchmarks: list[dict[str, Any]]) -> Iterator[str]:
    """The lines of the table, with where it was run above and the targets counted below."""
    infos = [entry["extra_info"] for entry in benchmarks if "what" in entry["extra_info"]]
    if not infos:
        yield "no benchmark was recorded"
        return
    yield ", ".join(sorted({f"{i['cpu']}, {i['kernels']} kernels, {i['profile']}" for i in infos}))
    rows = [row for info in infos for row in rows_of(info)]
    yield from aligned([HEAD, *rows])
    judged = [row[-1] for row in rows if row[-1]]
    yield f"{len(judged)} targets: {judged.count('yes')} met, {judged.count('NO')} missed"


def rows_of(info: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The rows of one job: its own target, then each rival."""
    what, unit, ours = info["what"], info["unit"], figure(info["ours"], info["unit"])
    if info["most"] is not None or not info["rivals"]:
        target = "" if info["most"] is None else f"<= {figure(info['most'], unit)}"
        yield what, ours, "", "", "", target, MET[info["met"]]
    for rival in info["rivals"]:
        yield (
            what,
            ours,
            rival["name"],
            figure(rival["figure"], unit),
            ratio(rival["ratio"], rival["multiple"]),
            bounded(rival),
            MET[rival["met"]],
        )


def figure(value: float, unit: str) -> str:
    """A figure in the largest unit that it reaches."""
    scales = SCALES.get(unit, ((1.0, unit),))
    size, name = next((scale for scale in scales if value >= scale[0]), scales[-1])
    return f"{value / size:.3g} {name}"


def ratio(value: float, multiple: bool) -> str:
    """A ratio with its sense."""
    text = f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
    return f"{text} of it" if multiple else f"{text} x"


def bounded(rival: dict[str, Any]) -> str:
    """A rival's target."""
    if rival["most"] is not None:
        return f"<= {rival['most']:g} of it"
    return "" if rival["least"] is None else f">= {rival['least']:g} x"


def aligned(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """The rows in columns; what repeats the row above is left blank."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    above: tuple[str, ...] = ()
    for row in table:
        repeats = row[:2] == above
        above = row[:2]
        cells = ("", "", *row[2:]) if repeats else row
        yield "  ".join(
            cell.rjust(width) if at in RIGHT else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

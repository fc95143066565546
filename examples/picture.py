"""Pictures of a guest of 1 TiB that boots: an SVG of what it shares, and a PNG of how it came to.

`python examples/picture.py [FOLDER]` writes boot.svg and, where matplotlib is installed (the `plot`
extra), boot.png into the folder, by default a new temporary one; those in docs/ are made so. A
notebook shows the same SVG for a cell that ends with a PageSet.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from pysharedpages import SharedPages, Snapshot, plot

GIB = 1 << 18
TIB = 1 << 28
STEPS = 12


def boot(pages: SharedPages) -> list[Snapshot]:
    """Bounce buffers low in memory, then buffers of drivers anywhere, and a device far above."""
    rng = np.random.default_rng(2021)
    snapshots = []
    pages.share(GIB, GIB)
    for step in range(STEPS):
        snapshots.append(pages.snapshot())
        for gfn in rng.integers(4 * GIB, TIB * (step + 1) // STEPS, 340).tolist():
            pages.share(gfn)
        for gfn in rng.integers(4 * GIB, TIB, 5).tolist():
            pages.share(gfn // 512 * 512, 512)
    pages.share(64 * TIB, GIB // 2)
    pages.unshare(GIB + GIB // 2, GIB // 4)
    return [*snapshots, pages.snapshot()]


def main(folder: Path) -> None:
    """Boot, draw, save."""
    with SharedPages() as pages:
        snapshots = boot(pages)
    svg = snapshots[-1]._repr_html_()
    (folder / "boot.svg").write_text(svg + "\n", encoding="ascii")
    print(f"{snapshots[-1]!r}\n{folder / 'boot.svg'}: {len(svg)} bytes")
    try:
        plot(snapshots)
    except ImportError as missing:
        print(missing)
    else:
        from matplotlib import pyplot

        pyplot.savefig(folder / "boot.png", dpi=90)
        print(folder / "boot.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))

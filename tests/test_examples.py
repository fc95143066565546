# tier: promise
"""The examples run on the installed package, print what they promise, and can fail."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

# What each prints, as patterns of whole lines: those named must all be there.
RUNS = [
    (
        ["track_and_merge.py"],
        [
            r"16484 pages converted in one step: .*",
            r"as plain bytes: +\[\[524288, 524296\], \[1048576, 1048577\]\]",
            r"through the platform: \[\[589824, 589828\]\]",
        ],
    ),
    (
        ["picture.py"],
        [
            r"<Snapshot 362478 pages in 4096 or more ranges: .*>",
            r".*boot\.svg: [0-9]+ bytes",
        ],
    ),
    (
        ["kvm_guest.py"],
        [
            r"16 pages as plain bytes: \[\[262144, 262160\]\]",
            r"1 page by the platform: \[\[256, 257\]\]",
        ],
    ),
    *(
        (
            ["live_migration.py", *arguments],
            [
                r"round 1, 2048 pages: \d+ shared, 0 rerouted",
                r"round 2, [1-9]\d* pages: the link broke .*, so the round is aborted",
                r"round 3, [1-9]\d* pages: \d+ shared, \d+ rerouted",
                r"final round \d+, \d+ pages: \d+ shared, \d+ rerouted",
                r"2048 pages compared, 0 differ: \[\]",
                r"[1-9]\d* pages are shared there as here: True",
            ],
        )
        for arguments in ([], ["--told"])
    ),
    *(
        (
            ["qemu_style_vmm.py", *arguments],
            [
                r"error: the guest forbids its migration.*",
                r"the guest allows its migration",
                r"completed; pages shared\+private by round: \d+\+\d+, .*, 0\+0",
                r"[1-9]\d* pages converted, told in [1-9]\d* wakes",
                r"4096 pages compared, and the paths they took: 0 differ \[\]",
                r"the list of shared pages is the guest's: True",
            ],
        )
        for arguments in ([], ["--played"])
    ),
    (
        ["snapshot_backup.py"],
        [
            r"301 requests converted [1-9]\d* pages; pinned == shared after each",
            r"pinned: [2-3]\.\d MiB, [2-4]\.\d MiB at most; pinning all memory takes 64\.0 MiB",
            r"backup: [4-9]\d\d shared pages in \d+ rounds and a final one; "
            r"0 differ from what the guest wrote, 0 are not shared",
        ],
    ),
]

# What makes an example wrong: the text to replace, by what, and how the failure is told.
FAULTS = [
    ("live_migration.py", "self._host.export_page(gfn)", "self._host.load(gfn)", "19.. differ"),
    ("live_migration.py", "payload=r.rerouted.pages().tobytes()", "payload=b''", "not cancelled"),
    ("live_migration.py", "self._pages.set_list(", "np.asarray(", "shared there as here: False"),
    ("qemu_style_vmm.py", "(r.private, False)", "(r.private, True)", "40.. differ"),
    ("qemu_style_vmm.py", "vmm.sent_list == SHARED", "not SHARED", "is the guest's: False"),
    (
        "snapshot_backup.py",
        "self.pins.unpin(self.pins.pinned & asked)",
        "pass",
        "private and pinned",
    ),
    ("snapshot_backup.py", "self.pins.pin(now - self.pins.pinned)", "pass", "pinned or shared"),
    ("snapshot_backup.py", "self._each(self._libc.munlock, pages)", "pass", "locked or shared"),
    ("snapshot_backup.py", "self.copies.pop(gfn, None)", "pass", "[1-9].* are not shared"),
]


def run(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it away from the source tree; skips where it says that this host cannot."""
    command = [sys.executable, "-P", str(script), *arguments]
    done = subprocess.run(command, cwd=script.parent, capture_output=True, text=True, timeout=120)
    if done.returncode == 3:
        pytest.skip(f"this host cannot: {done.stderr.strip()}")
    return done


def copied(name: str, folder: Path, text: str = "", instead: str = "") -> Path:
    """A copy of an example, with something replaced that is there."""
    source = (EXAMPLES / name).read_text()
    assert text in source
    script = folder / name
    script.write_text(source.replace(text, instead) if text else source)
    return script


def test_every_example_is_run() -> None:
    assert {arguments[0] for arguments, _ in RUNS} == {path.name for path in EXAMPLES.glob("*.py")}


@pytest.mark.parametrize(("arguments", "lines"), RUNS, ids=[" ".join(each) for each, _ in RUNS])
def test_example_prints(arguments: list[str], lines: list[str], tmp_path: Path) -> None:
    name, *rest = arguments
    done = run(copied(name, tmp_path), *rest)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    for line in lines:
        assert any(re.fullmatch(line, each) for each in printed), (line, done.stdout)


@pytest.mark.parametrize(("name", "text", "instead", "told"), FAULTS)
def test_example_fails_loudly(
    name: str, text: str, instead: str, told: str, tmp_path: Path
) -> None:
    script = copied(name, tmp_path, text, instead)
    script.write_text(script.read_text().replace("PATIENCE = 20.0", "PATIENCE = 3.0"))
    done = run(script)
    assert done.returncode == 1, done.stdout
    assert re.search(told, done.stdout + done.stderr), done.stdout + done.stderr

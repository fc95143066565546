# tier: promise
"""What the documents promise of the tree and of the installed package, checked against both.

The floors are read from ARCHITECTURE.md and the tiers from CONTRIBUTING.md, so that a document
cannot say one thing and the code another. A check that finds nothing to check fails.
"""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest

import pysharedpages
from pysharedpages import _core, errors

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "pysharedpages"
INSTALLED = Path(_core.__file__).parent
C_SUFFIXES = {".c", ".h", ".inc"}
FACADES = ("__init__", "__main__")

T = TypeVar("T")


def some(found: Iterable[T], what: str) -> list[T]:
    """All that was found; nothing at all is a failure."""
    items = list(found)
    assert items, f"no {what} to check"
    return items


def files_below(top: Path, suffixes: set[str]) -> list[Path]:
    """Files with one of the suffixes, in a stable order."""
    return sorted(path for path in top.rglob("*") if path.suffix in suffixes)


def fenced(document: Path, language: str) -> list[str]:
    """Bodies of the document's fenced blocks in one language."""
    text = document.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def core_sources() -> list[Path]:
    """The sources of the core."""
    return some(files_below(ROOT / "src", C_SUFFIXES), "source in src/")


# Floors. A room is the first path component below src/ or below the package.


class Use(NamedTuple):
    """One include or import: the file it stands in, both rooms, and what it says."""

    where: str
    user: str
    used: str
    text: str


def violations(uses: Iterable[Use], floors: dict[str, int]) -> list[str]:
    """A line for each use that does not lead to a lower floor or stay in its room."""
    bad = []
    for use in uses:
        missing = {use.user, use.used} - floors.keys()
        if missing:
            bad.append(f"{use.where}: {use.text}: no floor is stated for {sorted(missing)}")
        elif use.user != use.used and floors[use.used] >= floors[use.user]:
            bad.append(
                f"{use.where}: {use.text}: {use.user} (floor {floors[use.user]}) uses "
                f"{use.used} (floor {floors[use.used]})"
            )
    return bad


def c_floors(architecture: str) -> dict[str, int]:
    """Rooms of src/ and their floors, from the rows `| floor | rooms | what |`."""
    rows = re.findall(r"^\|\s*(\d+)\s*\|([^|]*)\|", architecture, re.M)
    return {
        room: int(floor) for floor, rooms in rows for room in re.findall(r"`([\w.]+)/?`", rooms)
    }


def python_floors(architecture: str) -> dict[str, int]:
    """Rooms of the package and their floors, from the sentence `Python floors: a < b, c < d.`"""
    sentence = re.search(r"Python floors: ([^.]*)", architecture)
    assert sentence, "ARCHITECTURE.md has no line 'Python floors:'"
    steps = sentence[1].split("<")
    floors = {
        room: floor
        for floor, step in enumerate(steps)
        for room in re.findall(r"`(\w+)(?:/\*)?`", step)
    }
    return floors | dict.fromkeys(FACADES, len(steps))


def includes(src: Path) -> Iterator[Use]:
    """Every `#include "..."` below src, resolved against its own folder, then against src."""
    for path in files_below(src, C_SUFFIXES):
        where = path.relative_to(src)
        for target in re.findall(r'^\s*#\s*include\s*"([^"]+)"', path.read_text(), re.M):
            found = next((p for p in (path.parent / target, src / target) if p.exists()), None)
            used = found.resolve().relative_to(src.resolve()).parts[0] if found else target
            yield Use(str(where), where.parts[0], used, f'#include "{target}"')


def import_statements(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """(dots, module, imported names) of every import; Cython sources are read by pattern."""
    text = path.read_text(encoding="utf-8")
    if path.suffix in {".pyx", ".pxd"}:
        pattern = r"^\s*from\s+(\.*)([\w.]*)\s+c?import\s+(\([^)]*\)|.+)$"
        for dots, module, names in re.findall(pattern, text, re.M):
            yield len(dots), module, re.findall(r"(\w+)(?:\s+as\s+\w+)?", names)
        for module in re.findall(r"^\s*c?import\s+([\w.]+)", text, re.M):
            yield 0, module, []
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            yield node.level, node.module or "", [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from ((0, alias.name, []) for alias in node.names)


def imports(package: Path) -> Iterator[Use]:
    """Every import of one of the package's own modules, by any spelling."""
    for path in files_below(package, {".py", ".pyi", ".pyx", ".pxd"}):
        where = path.relative_to(package)
        user = where.parts[0].partition(".")[0]
        folder = [package.name, *where.parts[:-1]]
        for dots, module, names in import_statements(path):
            base = folder[: len(folder) - dots + 1] if dots else []
            full = base + [part for part in module.split(".") if part]
            if full[:1] != [package.name]:
                continue
            modules = {name for name in names if any(package.glob(f"{name}.*"))}
            modules |= {name for name in names if (package / name).is_dir()}
            in_root = modules | ({"__init__"} if set(names) - modules or not names else set())
            for used in sorted(in_root if len(full) == 1 else {full[1]}):
                yield Use(str(where), user, used, f"import of {'.'.join(full)} {names}")


@pytest.fixture(scope="module")
def architecture() -> str:
    return (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def test_includes_lead_to_lower_floors(architecture: str) -> None:
    uses = some(includes(ROOT / "src"), "#include in src/")
    assert violations(uses, c_floors(architecture)) == []


def test_imports_lead_to_lower_floors(architecture: str) -> None:
    uses = some(imports(PACKAGE), "import in pysharedpages/")
    assert violations(uses, python_floors(architecture)) == []


def test_every_room_has_a_floor_and_every_floor_a_room(architecture: str) -> None:
    rooms = {path.relative_to(ROOT / "src").parts[0] for path in core_sources()}
    assert rooms == set(c_floors(architecture))
    modules = {
        path.relative_to(PACKAGE).parts[0].partition(".")[0]
        for path in files_below(PACKAGE, {".py", ".pyx"})
    }
    assert modules | set(FACADES) == set(python_floors(architecture))


def test_upward_sideways_and_unknown_includes_are_named(tmp_path: Path) -> None:
    table = "| 0 | `base/` | x |\n| 1 | `left/`, `right/` | x |\n| 2 | `top.h` | x |\n"
    sources = {
        "base/a.h": '#include "left/a.h"\n',
        "left/a.h": '#include "right/a.h"\n#include "base/a.h"\n#include "b.h"\n',
        "left/b.h": "#include <stdint.h>\n",
        "right/a.h": '#include "gone/a.h"\n',
        "top.h": '# include "left/a.h"\n',
    }
    for name, text in sources.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert violations(includes(tmp_path), c_floors(table)) == [
        'base/a.h: #include "left/a.h": base (floor 0) uses left (floor 1)',
        'left/a.h: #include "right/a.h": left (floor 1) uses right (floor 1)',
        "right/a.h: #include \"gone/a.h\": no floor is stated for ['gone/a.h']",
    ]


def test_upward_sideways_and_unknown_imports_are_named(tmp_path: Path) -> None:
    package = tmp_path / "pkg"
    (package / "abi").mkdir(parents=True)
    sources = {
        "__init__.py": "from ._core import x\nfrom . import abi, cli\n",
        "_core.pyx": "from .errors import (\n    E)\ncimport pkg.cli\n",
        "errors.py": "import os\n",
        "abi/__init__.py": "from . import kvm\n",
        "abi/kvm.py": "from ..errors import E\nfrom .. import dirty\nfrom pkg import x\n",
        "dirty.py": "from .other import y\n",
        "cli.py": "def main():\n    import pkg.abi.kvm\n",
    }
    for name, text in sources.items():
        (package / name).write_text(text)
    floors = python_floors("Python floors: `errors` < `_core` < `abi/*`,\n`dirty` < `cli`. `x`")
    found = violations(imports(package), floors)
    assert [line.partition(": import of ")[::2] for line in found] == [
        ("_core.pyx", "pkg.cli []: _core (floor 1) uses cli (floor 3)"),
        ("abi/kvm.py", "pkg ['dirty']: abi (floor 2) uses dirty (floor 2)"),
        ("abi/kvm.py", "pkg ['x']: abi (floor 2) uses __init__ (floor 4)"),
        ("dirty.py", "pkg.other ['y']: no floor is stated for ['other']"),
    ]


# The sources.


def test_only_base_includes_stdatomic() -> None:
    users = {
        path.relative_to(ROOT / "src").parts[0]
        for path in core_sources()
        if re.search(r"^\s*#\s*include\s*<stdatomic\.h>", path.read_text(), re.M)
    }
    assert users == {"base"}


def test_sources_are_ascii() -> None:
    assert [path for path in core_sources() if not path.read_bytes().isascii()] == []


def test_every_test_file_states_its_tier_first() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("| tier |")[2].partition("\n\n")[0]
    tiers = set(some(re.findall(r"^\| (\w+) \|", table, re.M), "tier in CONTRIBUTING.md"))
    holds_tests = re.compile(
        r"^\s*(async )?def test_|RuleBasedStateMachine\)|^int main\(|LLVMFuzzerTestOneInput\(", re.M
    )
    tests = {path: path.read_text() for path in files_below(ROOT / "tests", {".py", ".c"})}
    wrong = []
    for path in some((p for p in tests if holds_tests.search(tests[p])), "test file"):
        first = tests[path].partition("\n")[0]
        stated = re.match(r"(?:#|//|/\*) tier: ([\w, ]+?)\s*(?:\*/)?$", first)
        if not stated or not set(stated[1].split(", ")) <= tiers:
            wrong.append(f"{path.relative_to(ROOT)}: {first}")
    assert wrong == []


# The installed package.


def installed_files() -> list[str]:
    """What the installer recorded, without the bytecode it made itself."""
    files = importlib.metadata.files("pysharedpages") or []
    return some((str(f) for f in files if "__pycache__" not in f.parts), "installed file")


def test_the_package_under_test_is_the_installed_one() -> None:
    assert INSTALLED != PACKAGE
    assert Path(inspect.getfile(pysharedpages)).parent == INSTALLED


def test_python_dash_m_pytest_does_not_import_the_source_tree() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    test = f"{Path(__file__)}::test_the_package_under_test_is_the_installed_one"
    run = subprocess.run(
        [*command, test], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_wheel_holds_the_package_and_nothing_else() -> None:
    source = {
        str(path.relative_to(ROOT))
        for path in PACKAGE.rglob("*")
        if path.is_file()
        and path.suffix not in {".pyx", ".pxd", ".so"}
        and "__pycache__" not in path.parts
    }
    assert {"pysharedpages/py.typed", "pysharedpages/_core.pyi"} <= source
    extension = str(Path("pysharedpages") / Path(_core.__file__).name)
    metadata = f"pysharedpages-{importlib.metadata.version('pysharedpages')}.dist-info/"
    found = {name for name in installed_files() if not name.startswith(metadata)}
    scripts = {name for name in found if name.startswith("..")}
    assert found - scripts == source | {extension}
    assert [Path(name).name for name in scripts] == ["pysharedpages"]
    assert any(name.endswith("licenses/LICENSE") for name in installed_files())


def test_numpy_is_the_only_requirement_and_the_version_is_the_project_s() -> None:
    requirements = some(importlib.metadata.requires("pysharedpages") or [], "requirement")
    bare = [line for line in requirements if "extra ==" not in line]
    assert [re.match(r"[\w-]+", line)[0] for line in bare] == ["numpy"]  # type: ignore[index]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert importlib.metadata.version("pysharedpages") == project["version"]


def test_the_extension_exports_its_init_function_alone() -> None:
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm (binutils) is not on this host")
    command = [nm, "--dynamic", "--defined-only", "--format=posix", _core.__file__]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["PyInit__core"]


def test_error_classes_and_their_bases() -> None:
    bases = {
        "SharedPagesError": (Exception,),
        "RangeError": (errors.SharedPagesError, ValueError),
        "FormatError": (errors.SharedPagesError, ValueError),
        "ClosedError": (errors.SharedPagesError, RuntimeError),
        "SnapshotLimitError": (errors.SharedPagesError,),
    }
    assert {name: getattr(errors, name).__bases__ for name in bases} == bases
    assert {name: getattr(pysharedpages, name) for name in bases} == {
        name: getattr(errors, name) for name in bases
    }


def stub_names(body: list[ast.stmt]) -> set[str]:
    """Public names that a stub's module or class body declares."""
    names: set[str] = set()
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign):
            names.add(ast.unparse(node.target))
        elif isinstance(node, ast.Assign):
            names.update(ast.unparse(target) for target in node.targets)
    return {name for name in names if not name.startswith("_")}


def test_the_stub_declares_what_the_extension_has() -> None:
    stub = ast.parse((INSTALLED / "_core.pyi").read_text())
    own = {
        name: value
        for name, value in vars(_core).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and not (isinstance(value, type) and value.__module__ != _core.__name__)
    }
    some(own, "public name in _core")
    assert stub_names(stub.body) == set(own)
    classes = {node.name: node for node in stub.body if isinstance(node, ast.ClassDef)}
    for name, node in classes.items():
        if name.startswith("_"):
            continue
        members = {member for member in vars(own[name]) if not member.startswith("_")}
        assert stub_names(node.body) == members, name


# The documents.


def run_script(script: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script on the installed package, away from the source tree."""
    command = [sys.executable, "-P", str(script)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def test_readme_python_runs(tmp_path: Path) -> None:
    blocks = some(fenced(ROOT / "README.md", "python"), "```python block in README.md")
    (tmp_path / "readme.py").write_text("\n".join(blocks))
    run = run_script(tmp_path / "readme.py", tmp_path)
    assert run.returncode == 0, run.stderr

"""The shape of the source tree, as a lint: imports point one way, pure parts stay pure.

    launcher/ -> runtime/ -> csrc/

Each rule is a function from a source tree to its violations, one readable line each. The first
test applies all rules to this repository; the others show every rule a tree that breaks it.
"""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# State machines and algorithms without I/O, threads or clocks: files or packages under
# runtime/atoll/. What they import from atoll must be just as pure.
PURE = [
    "membership",
    "planning",
    "data/ledger.py",
    "elastic/identity.py",
    "elastic/layout.py",
    "elastic/tree.py",
    "elastic/planner.py",
    "elastic/placement.py",
    "elastic/transition.py",
    "elastic/recovery.py",
    "elastic/schedule.py",
    "elastic/gate.py",
    "elastic/governor.py",
    "checkpoint/manifest.py",
    "checkpoint/rules.py",
    "checkpoint/shards.py",
    "trust/names.py",
    "trust/tokens.py",
]
IMPURE_MODULES = {"torch", "grpc", "asyncio", "socket", "threading", "time"}

# The core knows no model, no gRPC and no Python object.
FORBIDDEN_INCLUDE = re.compile(
    r'^\s*#\s*include\s*[<"]((?:Python\.h|pybind11/|grpc|torch/|ATen/)[^>"]*)', re.MULTILINE
)

MAX_LINES = 450
MAX_MODULES = 16
SOURCE_FOLDERS = ["csrc", "runtime", "launcher", "tests", "examples", "benchmarks"]
SOURCE_SUFFIXES = {".py", ".pyi", ".cpp", ".h"}
GENERATED = "runtime/atoll/pb"

Rule = Callable[[Path], Iterator[str]]


def python_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def module_name(path: Path, base: Path) -> str:
    """Return the dotted name of the module at `path`, where `base` is on the import path."""
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, base: Path) -> Iterator[tuple[int, str]]:
    """Yield line and absolute dotted name of all that a file imports, wherever in it.

    `from a import b` yields `a.b`: whether `b` is a module is for the caller to find out.
    """
    package = module_name(path, base).split(".")
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)


def source_of(name: str, base: Path) -> Path | None:
    """Return the file under `base` that the dotted `name`, or a symbol of it, comes from."""
    parts = name.split(".")
    for candidate in (parts, parts[:-1]):
        stem = base.joinpath(*candidate)
        # The core is known by its stub.
        for path in (stem / "__init__.py", stem.with_suffix(".py"), stem.with_suffix(".pyi")):
            if candidate and path.is_file():
                return path
    return None


def runtime_never_imports_launcher(root: Path) -> Iterator[str]:
    base = root / "runtime"
    for path in python_files(base):
        for line, name in imports(path, base):
            if name.split(".")[0] == "atoll_launcher":
                yield f"{path.relative_to(root)}:{line}: runtime/ imports {name}"


def pure_parts_import_nothing_impure(root: Path) -> Iterator[str]:
    base = root / "runtime"
    waiting: list[Path] = []
    for entry in PURE:
        place = base / "atoll" / entry
        found = python_files(place) if place.is_dir() else [place] if place.is_file() else []
        if not found:
            yield f"runtime/atoll/{entry}: listed as pure, but not there"
        waiting += found
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        for line, name in imports(path, base):
            top = name.split(".")[0]
            if top in IMPURE_MODULES:
                yield f"{path.relative_to(root)}:{line}: a pure part imports {name}"
            source = source_of(name, base) if top == "atoll" else None
            if source is not None and source not in seen:
                seen.add(source)
                waiting.append(source)


def runtime_never_prints(root: Path) -> Iterator[str]:
    for path in python_files(root / "runtime"):
        for node in ast.walk(parse(path)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "print"
            ):
                yield f"{path.relative_to(root)}:{node.lineno}: runtime/ logs, it does not print"


def core_includes_nothing_of_python_or_grpc(root: Path) -> Iterator[str]:
    for path in sorted((root / "csrc" / "atoll").rglob("*")):
        if path.is_file():
            for name in FORBIDDEN_INCLUDE.findall(path.read_text()):
                yield f"{path.relative_to(root)}: the core includes {name}"


def files_are_short(root: Path) -> Iterator[str]:
    for folder in SOURCE_FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in SOURCE_SUFFIXES or (root / GENERATED) in path.parents:
                continue
            lines = len(path.read_text().splitlines())
            if lines > MAX_LINES:
                yield f"{path.relative_to(root)}: {lines} lines, at most {MAX_LINES}"


def the_launcher_is_in_folders(root: Path) -> Iterator[str]:
    """By what they are for: a folder that has grown beyond this is two."""
    base = root / "launcher" / "atoll_launcher"
    for folder in [base, *(path for path in base.rglob("*") if path.is_dir())]:
        count = len(list(folder.glob("*.py")))
        if count > MAX_MODULES:
            yield f"{folder.relative_to(root)}: {count} modules, at most {MAX_MODULES}"


def modules_of_tests_differ_in_name(root: Path) -> Iterator[str]:
    """pytest imports them by their bare names; a second one of a name stops the whole suite."""
    seen: dict[str, Path] = {}
    for path in sorted((root / "tests").rglob("*.py")):
        if path.name in ("conftest.py", "__init__.py"):
            continue
        first = seen.setdefault(path.name, path)
        if first is not path:
            yield f"{path.relative_to(root)}: {first.relative_to(root)} has that name, too"


def no_test_imports_from_a_conftest(root: Path) -> Iterator[str]:
    """Every folder's has that name: which one is imported depends on what runs beside it."""
    base = root / "tests" / "python"
    for path in python_files(base):
        for line, name in imports(path, base):
            if name.split(".")[0] == "conftest":
                yield f"{path.relative_to(root)}:{line}: imports from a conftest; use a module"


def the_launchers_tests_lie_as_it_does(root: Path) -> Iterator[str]:
    """In folders of the same names."""
    base = root / "tests" / "python" / "launcher"
    for path in sorted(base.rglob("test_*.py")):
        folder = path.parent.relative_to(base)
        if not (root / "launcher" / "atoll_launcher" / folder).is_dir():
            yield f"{path.relative_to(root)}: the launcher has no folder {folder}"


RULES: list[Rule] = [
    runtime_never_imports_launcher,
    pure_parts_import_nothing_impure,
    runtime_never_prints,
    core_includes_nothing_of_python_or_grpc,
    files_are_short,
    the_launcher_is_in_folders,
    modules_of_tests_differ_in_name,
    no_test_imports_from_a_conftest,
    the_launchers_tests_lie_as_it_does,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_this_repository_keeps(rule: Rule) -> None:
    violations = list(rule(ROOT))
    assert not violations, "\n" + "\n".join(violations)


VIOLATIONS: list[tuple[Rule, str, str]] = [
    (runtime_never_imports_launcher, "runtime/atoll/a.py", "from atoll_launcher.main import main"),
    (runtime_never_imports_launcher, "runtime/atoll/a.py", "def f():\n    import atoll_launcher"),
    (pure_parts_import_nothing_impure, "runtime/atoll/membership/b.py", "import time"),
    (pure_parts_import_nothing_impure, "runtime/atoll/membership/b.py", "from grpc import aio"),
    (pure_parts_import_nothing_impure, "runtime/atoll/membership/b.py", "from ..impure import x"),
    (pure_parts_import_nothing_impure, "runtime/atoll/membership/b.py", "from atoll import impure"),
    (pure_parts_import_nothing_impure, "runtime/atoll/data/ledger.py", "import atoll.impure as i"),
    (runtime_never_prints, "runtime/atoll/a.py", "def f():\n    print(1)"),
    (core_includes_nothing_of_python_or_grpc, "csrc/atoll/a.h", "#include <Python.h>"),
    (core_includes_nothing_of_python_or_grpc, "csrc/atoll/x/a.cpp", '# include "pybind11/stl.h"'),
    (core_includes_nothing_of_python_or_grpc, "csrc/atoll/a.cpp", "#include <grpcpp/grpcpp.h>"),
    (modules_of_tests_differ_in_name, "tests/python/b/test_a.py", ""),
    (no_test_imports_from_a_conftest, "tests/python/b/test_b.py", "from conftest import x"),
    (no_test_imports_from_a_conftest, "tests/python/b/test_b.py", "import conftest"),
    (the_launchers_tests_lie_as_it_does, "tests/python/launcher/b/test_b.py", ""),
    (files_are_short, "csrc/atoll/a.cpp", "\n" * (MAX_LINES + 1)),
    (files_are_short, "launcher/atoll_launcher/a.py", "\n" * (MAX_LINES + 1)),
]


@pytest.fixture
def clean_tree(tmp_path: Path) -> Path:
    """A small tree that keeps all rules."""
    files = {
        "tests/python/a/test_a.py": "from other import conftest",
        "tests/python/launcher/test_main.py": "",
        "runtime/atoll/__init__.py": "import time",
        "runtime/atoll/impure.py": "import torch.nn",
        "runtime/atoll/errors.py": "import enum",
        "runtime/atoll/membership/__init__.py": "",
        "runtime/atoll/membership/view.py": "from ..errors import E\nfrom .other import t",
        "runtime/atoll/membership/other.py": "from atoll.errors import E",
        "runtime/atoll/planning/__init__.py": "",
        "runtime/atoll/data/ledger.py": "import dataclasses",
        "runtime/atoll/pb/long_pb2.py": "\n" * (MAX_LINES + 1),
        "csrc/atoll/a.h": '#include "atoll/wire/frame.h"\n// not #include <Python.h>',
        "csrc/binding/module.cpp": "#include <pybind11/pybind11.h>",
        "launcher/atoll_launcher/main.py": "import atoll\nprint(1)",
    }
    for entry in PURE:
        place = entry if entry.endswith(".py") else f"{entry}/__init__.py"
        files.setdefault(f"runtime/atoll/{place}", "import re")
    for name, text in files.items():
        write(tmp_path / name, text)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_clean_tree_passes(rule: Rule, clean_tree: Path) -> None:
    assert list(rule(clean_tree)) == []


@pytest.mark.parametrize(("rule", "name", "text"), VIOLATIONS)
def test_a_violation_is_found(rule: Rule, name: str, text: str, clean_tree: Path) -> None:
    write(clean_tree / name, text)
    assert len(list(rule(clean_tree))) == 1


def test_a_crowded_folder_is_found(clean_tree: Path) -> None:
    for number in range(MAX_MODULES):
        write(clean_tree / f"launcher/atoll_launcher/a/m{number}.py", "")
    assert list(the_launcher_is_in_folders(clean_tree)) == []
    write(clean_tree / "launcher/atoll_launcher/a/one_more.py", "")
    assert len(list(the_launcher_is_in_folders(clean_tree))) == 1


def test_a_pure_part_that_moved_is_noticed(clean_tree: Path) -> None:
    (clean_tree / "runtime/atoll/data/ledger.py").unlink()
    assert len(list(pure_parts_import_nothing_impure(clean_tree))) == 1

"""`_core.pyi` names what the extension module has: classes, functions, arguments and defaults."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from atoll import _core

STUB = Path(__file__).resolve().parents[2] / "runtime/atoll/_core.pyi"


def public(names: Any) -> set[str]:
    return {name for name in names if not name.startswith("_")}


def stub_names(body: list[ast.stmt]) -> set[str]:
    names: set[str] = set()
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.Assign(targets=[ast.Name(id=name)]):
                names.add(name)
    return public(names)


def stub_classes() -> list[ast.ClassDef]:
    return [node for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.ClassDef)]


def test_the_stub_names_what_the_module_names() -> None:
    assert stub_names(ast.parse(STUB.read_text()).body) == public(dir(_core))


@pytest.mark.parametrize("stub", stub_classes(), ids=lambda stub: str(stub.name))
def test_the_stub_names_what_the_class_names(stub: ast.ClassDef) -> None:
    own = vars(getattr(_core, stub.name))
    assert stub_names(stub.body) == public(own)


def stub_functions() -> list[tuple[str, ast.FunctionDef]]:
    found: list[tuple[str, ast.FunctionDef]] = []
    for node in ast.parse(STUB.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.append((node.name, node))
        elif isinstance(node, ast.ClassDef):
            found += [
                (f"{node.name}.{function.name}", function)
                for function in node.body
                if isinstance(function, ast.FunctionDef) and not function.decorator_list
            ]
    return found


@pytest.mark.parametrize(
    ("path", "stub"), stub_functions(), ids=lambda it: str(getattr(it, "name", it))
)
def test_the_stub_names_the_arguments(path: str, stub: ast.FunctionDef) -> None:
    target: Any = _core
    for part in path.split("."):
        target = getattr(target, part)
    signature = target.__doc__.split(") ->")[0]
    native = re.findall(r"[(,] (?=\w)|(\w+): ", signature)
    arguments = stub.args
    expected = [argument.arg for argument in arguments.args + arguments.kwonlyargs]
    assert [name for name in native if name and name != "self"] == [
        name for name in expected if name != "self"
    ]
    for name, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if isinstance(default, ast.Constant) and default.value is not ...:
            assert f"= {default.value!r}" in signature.split(f"{name.arg}: ")[1].split(",")[0]

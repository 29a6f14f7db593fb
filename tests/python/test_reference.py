"""The API reference under docs/ is complete, and what the docstrings say today."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import griffe
import pytest

import atoll
import atoll.distributed

REFERENCE = Path(__file__).parents[2] / "docs/reference"


@pytest.fixture(scope="module")
def generator() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(REFERENCE)
        yield importlib.import_module("generate")


@pytest.fixture(scope="module")
def package(generator: ModuleType) -> griffe.Module:
    return generator.load()


def test_the_pages_are_what_the_docstrings_say(
    generator: ModuleType, package: griffe.Module
) -> None:
    made = generator.rendered(package)
    assert sorted(made) == sorted(path.name for path in REFERENCE.glob("*.md"))
    old = [name for name, text in made.items() if (REFERENCE / name).read_text() != text]
    assert old == [], "run `make docs`"


def test_every_public_name_has_its_place(generator: ModuleType, package: griffe.Module) -> None:
    shown = {
        name for page in generator.PAGES.values() for name, _ in generator._things(package, page)
    }
    public = {f"atoll.{name}" for name in atoll.__all__} - {"atoll.__version__", "atoll.errors"}
    public |= {f"atoll.distributed.{name}" for name in atoll.distributed.__all__}
    public -= {"atoll.distributed.NAME"}
    public |= {
        f"atoll.errors.{name}"
        for name, value in vars(atoll.errors).items()
        if isinstance(value, type)
    }
    public |= {f"atoll.trainers.{name}.AtollCallback" for name in ("huggingface", "lightning")}
    assert public <= shown
    text = "".join(path.read_text() for path in REFERENCE.glob("*.md"))
    assert all(f"## {name}\n" in text for name in public)


def test_everything_public_says_what_it_is(generator: ModuleType, package: griffe.Module) -> None:
    """By a docstring of its own, or in its class's."""
    silent = []
    for page in generator.PAGES.values():
        for name, thing in generator._things(package, page):
            silent += [] if thing.has_docstring else [name]
            told = " ".join(
                each.docstring.value
                for each in (thing, thing.members.get("__init__"))
                if each is not None and each.docstring is not None
            )
            for short, member in thing.members.items():
                if short.startswith("_") or member.is_alias or member.has_docstring:
                    continue
                if not re.search(rf"\b{short}\b", told):
                    silent.append(f"{name}.{short}")
    # What libraries call by these names, and what their errors' tree says for all of them.
    asked = ("seed", "present", "targets", "adopt", "publish", "on_", "retryable", "consistency")
    said = [name for name in silent if not name.rpartition(".")[2].startswith(asked)]
    assert said == []

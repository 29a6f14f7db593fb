"""Writes the API reference: what is beside this file, from the docstrings, with griffe.

    make docs                    (or: .venv/bin/python docs/reference/generate.py)

Nothing is imported but griffe; it reads the files. A test compares what is checked in with what
this makes, and with what the packages say is public.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import griffe

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WIDE = 100


@dataclass(frozen=True, slots=True)
class Page:
    """names: dotted, of functions, classes and modules, whose classes are then meant."""

    title: str
    names: tuple[str, ...]
    see: str


PAGES = {
    "session": Page(
        "A session",
        ("atoll.join", "atoll.Session", "atoll.Handle", "atoll.SharedTensors"),
        "[design.md](../design.md), [collectives.md](../collectives.md)",
    ),
    "methods": Page(
        "Methods",
        (
            "atoll.DiLoCo",
            "atoll.StreamingDiLoCo",
            "atoll.SparseLoCo",
            "atoll.NoLoCo",
            "atoll.LocalSGD",
            "atoll.AdaptiveBatchSize",
            "atoll.LAMB",
        ),
        "[methods.md](../methods.md)",
    ),
    "replicas": Page(
        "Fault-tolerant data parallelism",
        ("atoll.FaultTolerantDDP", "atoll.FaultTolerantOptimizer"),
        "[data_parallel.md](../data_parallel.md)",
    ),
    "elastic": Page(
        "Elastic islands",
        ("atoll.ElasticIsland", "atoll.split_layers", "atoll.load_layers"),
        "[elastic.md](../elastic.md)",
    ),
    "distributed": Page(
        "The backend of torch.distributed",
        ("atoll.distributed.register", "atoll.distributed.ProcessGroup"),
        "[pytorch.md](../pytorch.md)",
    ),
    "trainers": Page(
        "Other libraries' trainers",
        (
            "atoll.trainers.huggingface",
            "atoll.trainers.lightning",
            "atoll.trainers.torchtitan.on_island",
        ),
        "[trainers.md](../trainers.md)",
    ),
    "errors": Page("Errors", ("atoll.errors",), "[operations.md](../operations.md)"),
}


def load() -> griffe.Module:
    """The package, read and not run. Raises SystemExit where it cannot be."""
    found = griffe.load("atoll", search_paths=[str(ROOT / "runtime")], allow_inspection=False)
    if not isinstance(found, griffe.Module):
        raise SystemExit("runtime/atoll is no package")
    return found


def rendered(package: griffe.Module) -> dict[str, str]:
    """The pages, by file name."""
    pages = {f"{name}.md": "\n".join(_page(package, page)) for name, page in PAGES.items()}
    listed = [
        f"- [{page.title}]({name}.md): {', '.join(f'`{short}`' for short in _short(package, page))}"
        for name, page in PAGES.items()
    ]
    introduction = (
        "What programs may use, from the docstrings (`make docs` writes these pages).\n"
        "Settings and environment variables are in [operations.md](../operations.md), commands in\n"
        "[launcher.md](../launcher.md)."
    )
    pages["README.md"] = "\n".join(["# API reference", "", introduction, "", *listed, ""])
    return pages


def _short(package: griffe.Module, page: Page) -> Iterator[str]:
    for name, _ in _things(package, page):
        yield name.removeprefix("atoll.").removeprefix("errors.")


def _things(package: griffe.Module, page: Page) -> Iterator[tuple[str, griffe.Object]]:
    """(dotted name as people write it, what it is)."""
    for name in page.names:
        thing = package[name.removeprefix("atoll.")]
        thing = thing.final_target if isinstance(thing, griffe.Alias) else thing
        if isinstance(thing, griffe.Module):
            for each in thing.classes.values():
                if not each.is_alias and not each.name.startswith("_"):
                    yield f"{name}.{each.name}", each
        else:
            yield name, thing


def _page(package: griffe.Module, page: Page) -> Iterator[str]:
    yield f"# {page.title}"
    yield ""
    yield f"See {page.see}. [All pages](README.md)."
    yield ""
    for name in page.names:
        thing = package[name.removeprefix("atoll.")]
        if isinstance(thing, griffe.Module):
            yield from _text(thing)
    for name, thing in _things(package, page):
        yield f"## {name}"
        yield ""
        if isinstance(thing, griffe.Class):
            yield from _class(thing)
        else:
            assert isinstance(thing, griffe.Function)
            yield from _signature(name.rpartition(".")[2], thing)
            yield from _text(thing)


def _class(thing: griffe.Class) -> Iterator[str]:
    members = {
        name: member.final_target if isinstance(member, griffe.Alias) else member
        for name, member in thing.all_members.items()
        if not name.startswith("_")
    }
    made = thing.all_members.get("__init__")
    if isinstance(made, griffe.Alias):
        made = made.final_target
    if isinstance(made, griffe.Function):
        yield from _signature(thing.name, made)
    yield from _text(thing)
    if isinstance(made, griffe.Function):
        yield from _text(made)
    for base in thing.mro():
        if base.path.startswith("atoll.") and base.name.endswith("Calls"):  # of many calls alike
            yield from _text(base)
    bare = []
    for name, member in members.items():
        if not member.has_docstring:
            bare += [name] if isinstance(member, griffe.Function) else []
            continue
        yield f"### {name}"
        yield ""
        if isinstance(member, griffe.Function):
            yield from _signature(name, member)
        elif isinstance(member, griffe.Attribute) and member.annotation is not None:
            yield from ["```python", f"{name}: {member.annotation}", "```", ""]
        yield from _text(member)
    if bare:
        yield (
            "Also, as a base class or the library asks: " + ", ".join(f"`{n}`" for n in bare) + "."
        )
        yield ""


def _signature(name: str, function: griffe.Function) -> Iterator[str]:
    shown, starred = [], False
    for parameter in function.parameters:
        if parameter.name == "self":
            continue
        kind = parameter.kind
        if kind is griffe.ParameterKind.var_positional:
            starred = True
        elif kind is griffe.ParameterKind.keyword_only and not starred:
            shown.append("*")
            starred = True
        prefix = {"variadic positional": "*", "variadic keyword": "**"}.get(str(kind.value), "")
        text = prefix + parameter.name
        if parameter.annotation is not None:
            text += f": {parameter.annotation}"
        if parameter.default is not None and not prefix:
            text += f" = {parameter.default}" if parameter.annotation else f"={parameter.default}"
        shown.append(text)
    result = "" if name[0].isupper() or function.returns is None else f" -> {function.returns}"
    line = f"{name}({', '.join(shown)}){result}"
    yield "```python"
    if len(line) <= WIDE:
        yield line
    else:
        yield f"{name}("
        yield from (f"    {each}," for each in shown)
        yield f"){result}"
    yield "```"
    yield ""


def _text(thing: griffe.Object) -> Iterator[str]:
    """The docstring. Indented lines after a blank one are code, in Markdown as in ours."""
    if thing.docstring is not None:
        yield inspect.cleandoc(thing.docstring.value)
        yield ""


def main() -> None:
    for name, text in rendered(load()).items():
        (HERE / name).write_text(text)


if __name__ == "__main__":
    main()

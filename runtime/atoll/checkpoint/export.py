"""A checkpoint's parameters as a folder of Hugging Face, or as one file of safetensors.

What a checkpoint does not hold comes from a folder of the model: its configuration, its tokenizer,
and the tensors that were not trained. No library is needed but safetensors.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from atoll.checkpoint import rules, shards
from atoll.checkpoint.pieces import assembled
from atoll.checkpoint.places import open_place
from atoll.checkpoint.read import Entry, load_some, survey
from atoll.errors import CheckpointError, MisuseError

if TYPE_CHECKING:
    import torch

    from atoll.checkpoint.places import Place

T = TypeVar("T")

WEIGHTS = "model.safetensors"
GROUP = "parameters"
BUFFERS = "buffers"
"""Which replicas' checkpoints hold, too: a model is not whole without a batch norm's, say."""
_BESIDE = {".json", ".jinja", ".model", ".py", ".txt"}
"""Suffixes of what is copied: configurations, tokenizers, templates, a model's own code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written. name: of the checkpoint. added: tensors of the model's folder; beside:
    files copied from there."""

    name: str
    round: int
    nbytes: int
    added: int
    beside: tuple[str, ...]


def export(
    url: str, to: Path, *, model: Path | None, on_damaged: Callable[[str, str], None]
) -> Exported:
    """Writes folder `to`, which appears as a whole; no training need be over for it.

    url: of a job's checkpoints, of which the newest whole one is taken, or of a single one; of
    islands of several processes that of the job, whose shards' parts are put together. model:
    a folder with config.json, and weights if something of the model was not trained; None: the
    parameters alone are written. `on_damaged(name, problem)` hears of those that are passed over.
    Raises MisuseError for folders that do not fit, CheckpointError when there is no whole
    checkpoint, ConfigError for a URL that cannot be used.
    """
    import safetensors.torch

    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise MisuseError(f"{to} is there already; name a new or an empty folder")
    if model is not None and not (model / "config.json").is_file():
        raise MisuseError(f"{model} has no config.json; name a folder that save_pretrained wrote")
    name, round_, tensors = _newest_whole(url, on_damaged)
    trained = len(tensors)
    beside: tuple[str, ...] = ()
    if model is not None:
        tensors |= _untrained(model, tensors)
    to.parent.mkdir(parents=True, exist_ok=True)
    draft = to.parent / f".tmp-{to.name}-{secrets.token_hex(4)}"
    draft.mkdir()
    try:
        safetensors.torch.save_file(tensors, draft / WEIGHTS, {"format": "pt"})
        if model is not None:
            beside = _copy_beside(model, draft)
        os.replace(draft, to)  # over an empty folder, too
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Exported(
        name=name,
        round=round_,
        nbytes=sum(tensor.nbytes for tensor in tensors.values()),
        added=len(tensors) - trained,
        beside=beside,
    )


_Found = tuple[str, int, "dict[str, torch.Tensor]"]
"""The checkpoint's name and round, and the tensors."""


def _newest_whole(url: str, on_damaged: Callable[[str, str], None]) -> _Found:
    above, _, last = url.rstrip("/").rpartition("/")
    single = last if rules.round_of(last) is not None else None
    place = open_place((above or ".") if single else url)
    entries = _listed(place, lambda: survey(place))
    folders = _listed(place, place.folders)
    counts = [count for count in map(shards.shards_of, folders) if count is not None]
    if any(shards.worker_of(name) is not None for name in folders) or any(
        entry.manifest is not None and "layout" in entry.manifest.values for entry in entries
    ):
        raise MisuseError(
            f"{url} holds what an elastic island's workers have written: atoll.load_layers puts it "
            "into a model"
        )
    if any(entry.manifest is not None and entry.manifest.part for entry in entries):
        raise MisuseError(
            f"{url} holds the parts of one shard of several; name the folder above, which has all"
        )
    if counts and not entries:
        return _newest_of_parts(url, max(counts), on_damaged)
    problem = "there is no checkpoint"
    for entry in entries:
        if single in (None, entry.name):
            try:
                return entry.name, entry.round, _parameters(place, entry)
            except CheckpointError as error:
                problem = str(error)
                on_damaged(entry.name, problem)
    raise CheckpointError(f"{url}: nothing can be exported: {problem}")


def _newest_of_parts(url: str, count: int, on_damaged: Callable[[str, str], None]) -> _Found:
    """count: shards of an island."""
    places = [open_place(f"{url.rstrip('/')}/{shards.folder_of(n, count)}") for n in range(count)]
    surveys = [_listed(place, partial(survey, place)) for place in places]
    entries = [{entry.name: entry for entry in found} for found in surveys]
    problem = "there is no checkpoint of which all shards have a part"
    for version in shards.versions([[entry.known for entry in found] for found in surveys]):
        name = f"round {version.round} of {count} shards"
        chosen = [known[part] for known, part in zip(entries, version.names, strict=True)]
        try:
            return name, version.round, _put_together(places, chosen)
        except CheckpointError as error:
            problem = str(error)
            on_damaged(name, problem)
    raise CheckpointError(f"{url}: nothing can be exported: {problem}")


def _put_together(places: list[Place], entries: list[Entry]) -> dict[str, torch.Tensor]:
    parts = []
    for place, entry in zip(places, entries, strict=True):
        tensors = _parameters(place, entry)
        assert entry.manifest is not None  # it has parameters
        if entry.manifest.pieces is None:
            raise CheckpointError(
                f"{place.url}/{entry.name} does not say how parameters are split; atoll "
                f"{entry.manifest.software} wrote it"
            )
        parts.append((entry.manifest.pieces, tensors))
    try:
        return assembled(parts)
    except ValueError as error:
        raise CheckpointError(str(error)) from None


def _listed(place: Place, listing: Callable[[], T]) -> T:
    try:
        return listing()
    except OSError as error:
        raise CheckpointError(f"{place.url}: cannot be listed: {error.strerror or error}") from None


def _parameters(place: Place, entry: Entry) -> dict[str, torch.Tensor]:
    """And buffers. Raises CheckpointError for a checkpoint that is damaged, or holds no
    parameters."""
    import torch

    files = () if entry.manifest is None else entry.manifest.files
    targets: dict[str, dict[str, torch.Tensor]] = {GROUP: {}, BUFFERS: {}}
    for file in files:
        if file.group in targets:
            targets[file.group] |= {
                name: torch.empty(shape, dtype=getattr(torch, dtype), device="cpu")
                for name, (dtype, shape) in file.tensors.items()
            }
    load_some(place, entry, targets)
    if not targets[GROUP]:
        raise CheckpointError(f"{place.url}/{entry.name} holds no group {GROUP}")
    return targets[GROUP] | targets[BUFFERS]


def _untrained(model: Path, trained: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The model's tensors that are not in the checkpoint; but not copies of a trained tensor there
    (tied embeddings), of which the checkpoint has the new value."""
    from safetensors import safe_open

    found: dict[str, torch.Tensor] = {}
    for path in _weights_of(model):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if found and not found.keys() & trained.keys():
        raise MisuseError(
            f"{model} is another model's: none of its tensors ({min(found)}, ...) is in the "
            f"checkpoint ({min(trained)}, ...)"
        )
    for name, tensor in trained.items():
        if name in found and found[name].shape != tensor.shape:
            raise MisuseError(
                f"{model} is another model's: {name} is {list(found[name].shape)} there, "
                f"{list(tensor.shape)} in the checkpoint"
            )
    old = [found[name] for name in trained if name in found]
    return {
        name: tensor
        for name, tensor in found.items()
        if name not in trained and not any(_is_copy(tensor, one) for one in old)
    }


def _is_copy(tensor: torch.Tensor, other: torch.Tensor) -> bool:
    """Constant ones are alike by chance: the norms of a fresh model, say."""
    if tensor.shape != other.shape or not tensor.numel():
        return False
    is_constant = bool((tensor == tensor.flatten()[0]).all())
    return not is_constant and bool((tensor == other).all())


def _weights_of(model: Path) -> list[Path]:
    index = model / f"{WEIGHTS}.index.json"
    if index.is_file():
        names = set(json.loads(index.read_text())["weight_map"].values())
        return [model / Path(name).name for name in sorted(names)]
    return [model / WEIGHTS] if (model / WEIGHTS).is_file() else []


def _copy_beside(model: Path, draft: Path) -> tuple[str, ...]:
    names = sorted(
        path.name
        for path in model.iterdir()
        if path.is_file() and path.suffix in _BESIDE and not path.name.endswith(".index.json")
    )
    for name in names:
        shutil.copyfile(model / name, draft / name)
    return tuple(names)

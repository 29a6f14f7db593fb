"""Reading checkpoints: what is there, whether it is whole, and the newest whole one's tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from atoll.checkpoint import manifest as manifests
from atoll.checkpoint import rules
from atoll.checkpoint.manifest import FileEntry, Manifest
from atoll.checkpoint.rules import Known
from atoll.checkpoint.shards import shards_of
from atoll.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    import torch

    from atoll.checkpoint.places import Place

T = TypeVar("T")

Targets = Mapping[str, Mapping[str, "torch.Tensor"]]
"""By group and name: where the tensors are to be copied."""


class Damaged(Exception):
    """A checkpoint is not what its manifest says; the text is one clause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A checkpoint that is there: with its manifest, or with what is wrong with that."""

    name: str
    manifest: Manifest | None
    problem: str | None = None

    @property
    def round(self) -> int:
        if self.manifest is not None:
            return self.manifest.round
        return rules.round_of(self.name) or 0

    @property
    def known(self) -> Known:
        """What the rules must know of it."""
        created_s = 0.0 if self.manifest is None else self.manifest.created_s
        sound = self.manifest is not None
        return Known(name=self.name, round=self.round, created_s=created_s, sound=sound)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """Which checkpoint was taken, and what was wrong with those before it (name, problem)."""

    name: str
    manifest: Manifest
    damaged: tuple[tuple[str, str], ...]


def survey(place: Place) -> list[Entry]:
    """What is there, newest first. Raises OSError when the place cannot be listed."""
    entries = []
    for name in place.names():
        try:
            nbytes = place.size(name, manifests.FILE)
            if nbytes > manifests.MAX_BYTES:
                raise ValueError(f"a manifest of {nbytes} bytes")
            manifest = manifests.decode(place.read(name, manifests.FILE))
            if rules.round_of(name) != manifest.round:
                raise ValueError(f"the manifest is of round {manifest.round}")
            entries.append(Entry(name=name, manifest=manifest))
        except FileNotFoundError:
            # Deleted since it was listed, or damaged: only the second is still listed.
            if name in place.names():
                entries.append(Entry(name=name, manifest=None, problem="it has no manifest"))
        except (OSError, ValueError) as error:
            entries.append(Entry(name=name, manifest=None, problem=str(error)))
    by_name = {entry.name: entry for entry in entries}
    return [by_name[one.name] for one in rules.newest_first(entry.known for entry in entries)]


def problem_of(place: Place, name: str, manifest: Manifest, *, digests: bool = True) -> str | None:
    """What is wrong with the first file that is not as the manifest says; None: it is whole.

    digests: False compares sizes alone.
    """
    for entry in manifest.files:
        try:
            if digests:
                _file(place, name, entry)
            elif place.size(name, entry.name) != entry.nbytes:
                return _sizes(entry, place.size(name, entry.name))
        except Damaged as error:
            return str(error)
        except OSError as error:
            return f"{entry.name}: {_reason(error)}"
    return None


def restore(
    place: Place,
    *,
    job: str,
    newer_than: int,
    begin: Callable[[dict[str, Any]], Targets],
    on_damaged: Callable[[str, str], None],
) -> Restored | None:
    """Copies the newest whole checkpoint into the targets that `begin` gives for its values.

    None when there is no checkpoint, or none after round `newer_than`. `on_damaged(name, problem)`
    hears of each one that is passed over. Raises ConfigError when another job wrote here,
    CheckpointError when the place cannot be read or no checkpoint in it is whole, and what `begin`
    raises.
    """
    entries = listed(place, lambda: survey(place))
    require_job(place, entries, job)
    require_shards(place, 1)
    damaged: list[tuple[str, str]] = []
    for entry in entries:
        if entry.round <= newer_than:
            return None
        try:
            manifest = load(place, entry, begin)
            return Restored(name=entry.name, manifest=manifest, damaged=tuple(damaged))
        except Damaged as error:
            damaged.append((entry.name, str(error)))
            on_damaged(entry.name, str(error))
    if damaged:
        raise CheckpointError(
            f"{place.url}: none of the {len(damaged)} checkpoints is whole (the newest, "
            f"{damaged[0][0]}: {damaged[0][1]}); bring one back from a backup, or name another "
            "URL to begin anew"
        )
    return None


def require_job(place: Place, entries: list[Entry], job: str) -> None:
    """Raises ConfigError when another job wrote here."""
    others = {entry.manifest.job for entry in entries if entry.manifest is not None} - {job}
    if others:
        raise ConfigError(
            f"{place.url} holds checkpoints of job '{min(others)}', this is job '{job}'; "
            "name another checkpoint_url, or the same job"
        )


def require_shards(place: Place, shards: int) -> None:
    """Raises ConfigError when islands of another number of processes wrote here: shards."""
    others = {shards_of(name) for name in listed(place, place.folders)} - {None, shards}
    if shards > 1 and listed(place, place.names):
        others.add(1)
    for other in sorted(one for one in others if one is not None):
        raise ConfigError(
            f"{place.url} holds checkpoints of islands of {_processes(other)}, those of this job "
            f"have {_processes(shards)}; start it with --nproc-per-node {other}, or name another "
            "checkpoint_url to begin anew"
        )


def _processes(number: int) -> str:
    return "1 process" if number == 1 else f"{number} processes"


def listed(place: Place, listing: Callable[[], T]) -> T:
    """What `listing` finds. Raises CheckpointError when the place cannot be listed."""
    try:
        return listing()
    except OSError as error:
        raise CheckpointError(
            f"{place.url}: the checkpoints cannot be listed: {_reason(error)}; nothing was "
            "started, so that the job does not begin anew by mistake"
        ) from error


def load(place: Place, entry: Entry, begin: Callable[[dict[str, Any]], Targets]) -> Manifest:
    """Copies every tensor to its target, which `begin` gives. Raises Damaged."""
    if entry.manifest is None:
        raise Damaged(entry.problem)
    targets = begin(entry.manifest.values)
    missing = {(group, key) for group, tensors in targets.items() for key in tensors}
    missing -= _copy(place, entry.name, entry.manifest, targets, others=False)
    if missing:
        raise Damaged(f"{min(missing)[1]} is in none of its files")
    return entry.manifest


def load_some(place: Place, entry: Entry, targets: Targets) -> set[tuple[str, str]]:
    """Copies those tensors that `targets` name; returns their groups and names.

    Raises CheckpointError when the checkpoint is not whole, or its tensors have other shapes.
    """
    try:
        if entry.manifest is None:
            raise Damaged(entry.problem)
        return _copy(place, entry.name, entry.manifest, targets, others=True)
    except Damaged as error:
        raise CheckpointError(f"{place.url}/{entry.name} is damaged: {error}") from error


def _copy(
    place: Place, name: str, manifest: Manifest, targets: Targets, *, others: bool
) -> set[tuple[str, str]]:
    """others: tensors without a target are passed over. Raises Damaged."""
    import safetensors
    import safetensors.torch

    found = set()
    for entry in manifest.files:
        if others and not targets.get(entry.group, {}).keys() & entry.tensors.keys():
            continue
        try:
            data = _file(place, name, entry)
            tensors = safetensors.torch.load(data)
        except OSError as error:
            raise Damaged(f"{entry.name}: {_reason(error)}") from error
        except safetensors.SafetensorError as error:
            raise Damaged(f"{entry.name}: {error}") from error
        for key, tensor in tensors.items():
            target = targets.get(entry.group, {}).get(key)
            if target is None and others:
                continue
            if target is None or target.shape != tensor.shape or target.dtype != tensor.dtype:
                raise Damaged(f"{entry.name}: {key} is not a tensor of this model")
            target.copy_(tensor)
            found.add((entry.group, key))
    return found


def _file(place: Place, name: str, entry: FileEntry) -> bytes:
    nbytes = place.size(name, entry.name)  # first: a file may have grown beyond all memory
    if nbytes != entry.nbytes:
        raise Damaged(_sizes(entry, nbytes))
    data = place.read(name, entry.name)
    if manifests.digest(data) != entry.digest:
        raise Damaged(f"{entry.name}: its content has changed (the digest does not match)")
    return data


def _sizes(entry: FileEntry, found: int) -> str:
    return f"{entry.name}: {found} bytes, {entry.nbytes} were written"


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is missing"
    return error.strerror or str(error) or type(error).__name__

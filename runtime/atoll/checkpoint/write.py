"""Writing one checkpoint: from a snapshot to a complete, durable one; then the oldest may go.

Thread: the checkpoint thread, or any that waits for it. Memory: one part (32 MiB, or the largest
tensor) is serialized at a time.
"""

from __future__ import annotations

import logging
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from atoll.checkpoint import manifest as manifests
from atoll.checkpoint import read as reading
from atoll.checkpoint import rules, shards
from atoll.checkpoint.manifest import FileEntry, Manifest, Part, Piece

if TYPE_CHECKING:
    import torch

    from atoll.checkpoint.places import Draft, Place

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The shared state at the end of a round. Nobody writes to its tensors (on the host) while it
    lives; `lease` keeps them so. pieces: of parameters of which this process has only a part."""

    round: int
    revision: int
    values: dict[str, Any]
    groups: dict[str, dict[str, torch.Tensor]]
    lease: object = None
    pieces: dict[str, Piece] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who writes: goes into the manifest."""

    job: str
    island: str
    software: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What came of it."""

    name: str
    manifest: Manifest
    seconds: float


def write(
    place: Place, snapshot: Snapshot, origin: Origin, *, epoch: int, part: Part | None = None
) -> Written:
    """Returns when the checkpoint is complete and durable. Raises OSError; nothing remains then.

    part: which one this is, where each shard writes its own."""
    began = time.monotonic()
    token = secrets.token_hex(4)
    if part is not None:
        token = shards.token_of(part.line, epoch, token)
    name = rules.name_of(snapshot.round, token)
    draft = place.draft(name)
    try:
        manifest = Manifest(
            job=origin.job,
            round=snapshot.round,
            revision=snapshot.revision,
            epoch=epoch,
            created_s=time.time(),
            island=origin.island,
            software=origin.software,
            values=snapshot.values,
            files=_write_files(draft, snapshot),
            part=part,
            pieces=None if part is None else snapshot.pieces,
        )
        draft.commit(manifests.encode(manifest))
    except BaseException:
        draft.abandon()
        raise
    return Written(name=name, manifest=manifest, seconds=time.monotonic() - began)


def _write_files(draft: Draft, snapshot: Snapshot) -> tuple[FileEntry, ...]:
    import safetensors.torch

    entries = []
    for group, tensors in snapshot.groups.items():
        sizes = {name: tensor.nbytes for name, tensor in tensors.items()}
        for number, names in enumerate(rules.parts(sizes)):
            chosen = {name: tensors[name] for name in names}
            data = safetensors.torch.save(chosen, {"format": "pt"})
            entry = FileEntry(
                name=rules.file_of(group, number),
                group=group,
                nbytes=len(data),
                digest=manifests.digest(data),
                tensors={
                    name: [str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
                    for name, tensor in chosen.items()
                },
            )
            draft.write(entry.name, data)
            entries.append(entry)
    return tuple(entries)


def retire(place: Place, written: Written, keep: int) -> list[str]:
    """Deletes what is older than the newest `keep`; returns the names.

    Raises OSError, and deletes nothing, when the one just written cannot be read back.
    """
    problem = problem_with(place, written)
    if problem is not None:
        if any(name > written.name for name in place.names()) and written.name not in place.names():
            logger.info("%s was deleted by a writer that is ahead", written.name)
            return []
        raise OSError(problem)
    entries = reading.survey(place)
    known = [entry.known for entry in entries]
    gone = rules.expendable(known, keep=keep, sure=written.name)
    delete(place, gone)
    place.clean()
    return gone


def problem_with(place: Place, written: Written) -> str | None:
    """Why the one just written cannot be read back; None: it can."""
    problem = reading.problem_of(
        place, written.name, written.manifest, digests=place.reads_are_cheap
    )
    return problem and f"{written.name}, just written, cannot be read back: {problem}"


def delete(place: Place, names: list[str]) -> None:
    """Checkpoints that nobody needs. Raises OSError."""
    for name in names:
        try:
            place.delete(name)
        except FileNotFoundError:
            logger.info("%s was deleted by somebody else", name)

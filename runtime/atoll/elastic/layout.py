"""Who does what in one epoch: pure data, hashed, agreed upon before anybody uses it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from atoll.elastic.identity import Spine, VShard, Worker
from atoll.errors import MisuseError


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stretch of layers, and the workers that hold all of it.

    first, last: layers [first, last). micro_batches: one entry for each of the workers.
    """

    first: int
    last: int
    workers: tuple[Worker, ...]
    micro_batches: tuple[tuple[int, ...], ...]

    @property
    def layers(self) -> range:
        return range(self.first, self.last)

    def worker_of(self, micro_batch: int) -> Worker:
        """Raises MisuseError if nobody has it: `check` lets no such layout pass."""
        for worker, own in zip(self.workers, self.micro_batches, strict=True):
            if micro_batch in own:
                return worker
        raise MisuseError(f"nobody computes micro-batch {micro_batch}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Stages, and for each layer and v the vshard's owner and backup.

    The workers of one stage are a group. With several stages a group they take turns: of n groups,
    group p has the stages p, p + n, p + 2 n and so on, the same micro-batches in all of them.

    A backup is None where there is nobody to be it: with one worker in all, or until the vshard is
    protected again after a loss.
    """

    epoch: int
    stages: tuple[Stage, ...]
    owners: tuple[tuple[Worker, ...], ...]
    backups: tuple[tuple[Worker | None, ...], ...]

    @property
    def groups(self) -> tuple[tuple[Worker, ...], ...]:
        """Those who share stages, in the order of their first stages."""
        return tuple(dict.fromkeys(stage.workers for stage in self.stages))

    @property
    def chunks(self) -> int:
        """How many stages a group has."""
        return len(self.stages) // len(self.groups)

    @property
    def workers(self) -> tuple[Worker, ...]:
        """All workers, by group."""
        return tuple(worker for group in self.groups for worker in group)

    def stage_index(self, worker: Worker) -> int:
        """The first of a worker's stages. MisuseError for a worker that is not in this layout."""
        return self.stages_of(worker)[0]

    def stages_of(self, worker: Worker) -> tuple[int, ...]:
        """Raises MisuseError for a worker that is not in this layout."""
        found = tuple(i for i, stage in enumerate(self.stages) if worker in stage.workers)
        if not found:
            raise MisuseError(f"worker {worker} has no part in the layout of epoch {self.epoch}")
        return found

    def stage_of_layer(self, layer: int) -> int:
        for index, stage in enumerate(self.stages):
            if layer in stage.layers:
                return index
        raise MisuseError(f"no stage holds layer {layer}")

    def owner(self, shard: VShard) -> Worker:
        return self.owners[shard[0]][shard[1]]

    def backup(self, shard: VShard) -> Worker | None:
        return self.backups[shard[0]][shard[1]]

    def micro_batches_of(self, worker: Worker) -> tuple[int, ...]:
        stage = self.stages[self.stage_index(worker)]
        return stage.micro_batches[stage.workers.index(worker)]

    def encode(self) -> bytes:
        """Canonical: equal layouts have equal bytes."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()

    def digest(self) -> str:
        """64 hexadecimal digits, which all workers compare before they use the layout."""
        return hashlib.sha256(self.encode()).hexdigest()


def decode(text: bytes) -> Layout:
    """What `Layout.encode` made. Raises MisuseError for anything else."""
    try:
        found: dict[str, Any] = json.loads(text)
        layout = Layout(
            epoch=int(found["epoch"]),
            stages=tuple(
                Stage(
                    first=int(stage["first"]),
                    last=int(stage["last"]),
                    workers=tuple(map(str, stage["workers"])),
                    micro_batches=tuple(tuple(map(int, own)) for own in stage["micro_batches"]),
                )
                for stage in found["stages"]
            ),
            owners=tuple(tuple(map(str, row)) for row in found["owners"]),
            backups=tuple(
                tuple(None if name is None else str(name) for name in row)
                for row in found["backups"]
            ),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise MisuseError(f"not a layout: {error!r}") from error
    if layout.encode() != text:
        raise MisuseError("not a layout in its canonical form")
    return layout


def problems(layout: Layout, spine: Spine) -> tuple[str, ...]:
    """All that is wrong with a layout for this run, one sentence each; empty if it can be used."""
    return (
        *_stage_problems(layout, spine),
        *_owner_problems(layout, spine),
    )


def _stage_problems(layout: Layout, spine: Spine) -> list[str]:
    found = []
    covered = [layer for stage in layout.stages for layer in stage.layers]
    if covered != list(range(spine.layers)) or any(not stage.layers for stage in layout.stages):
        found.append(f"the stages hold the layers {covered}, not [0, {spine.layers}) in order")
    groups = layout.groups
    shares = [stage.micro_batches for stage in layout.stages[: len(groups)]]
    if len(set(layout.workers)) != len(layout.workers) or any(
        (stage.workers, stage.micro_batches) != (groups[p], shares[p])
        for index, stage in enumerate(layout.stages)
        for p in [index % len(groups)]
    ):
        found.append("a worker is in two places, or groups do not take turns")
    for index, stage in enumerate(layout.stages):
        if not stage.workers or len(stage.workers) != len(stage.micro_batches):
            found.append(
                f"stage {index} has {len(stage.workers)} workers and {len(stage.micro_batches)} "
                "shares of the micro-batches"
            )
        held = sorted(mb for own in stage.micro_batches for mb in own)
        if held != list(range(spine.micro_batches)):
            found.append(
                f"stage {index} computes the micro-batches {held}, not each of "
                f"[0, {spine.micro_batches}) once"
            )
    return found


def _owner_problems(layout: Layout, spine: Spine) -> list[str]:
    shapes = [[len(row) for row in table] for table in (layout.owners, layout.backups)]
    if shapes != [[spine.vshards] * spine.layers] * 2:
        return [f"owners and backups are not {spine.layers} rows of {spine.vshards}"]
    found = []
    everybody = set(layout.workers)
    for stage in layout.stages:
        for shard in ((layer, v) for layer in stage.layers for v in range(spine.vshards)):
            owner, backup = layout.owner(shard), layout.backup(shard)
            if owner not in stage.workers:
                found.append(f"{owner} owns vshard {shard} and is not in its stage")
            if backup is not None and backup not in everybody:
                found.append(f"{backup}, the backup of vshard {shard}, has no part in the layout")
            if backup == owner:
                found.append(f"{owner} is owner and backup of vshard {shard}")
    return found

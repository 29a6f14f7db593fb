"""Checkpoints of an elastic island: each worker writes what it owns, any number of them reads it.

    URL/part-00000/round-0000000120-1f3c9a2e/    what the layout's first worker owned at step 120
    URL/part-00001/...

The parts of one step in one layout are a checkpoint when all of them are there. Each part is an
ordinary one of `atoll.checkpoint` (docs/checkpoints.md): written aside and renamed, with digests.
Workers tell each other which parts are written, so the newest whole checkpoint is never deleted.

With an outer method the islands have to begin at one round together. After the step that ends a
round nothing is written before the round is made, so a checkpoint's step says its round. Islands
tell each other in every round of which rounds they have whole checkpoints, and none deletes the
newest that all have, or what is newer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from atoll.checkpoint import read, rules
from atoll.checkpoint.write import Origin, Snapshot, write
from atoll.elastic.identity import VShard
from atoll.elastic.layout import Layout
from atoll.elastic.outer import DiLoCo
from atoll.elastic.parts import Part, Stamp, place_of, survey
from atoll.elastic.requests import named
from atoll.elastic.stage_worker import StageWorker
from atoll.errors import CheckpointError, MismatchError

if TYPE_CHECKING:
    from torch import Tensor

    from atoll.checkpoint.places import Place
    from atoll.checkpoint.read import Entry

logger = logging.getLogger(__name__)


class Durable:
    """Thread: the user's; one thread more while something is written."""

    def __init__(
        self,
        url: str,
        origin: Origin,
        *,
        every: int,
        keep: int,
        outer: DiLoCo | None = None,
        tell: Callable[[str, str], None] = lambda kind, text: None,
    ) -> None:
        """every: steps between two checkpoints. keep: whole ones that stay. tell: as in
        `Session.notice`."""
        self.url = url.rstrip("/")
        self._origin, self._every, self._keep, self._tell = origin, every, keep, tell
        self._outer = outer
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._written: dict[Stamp, tuple[Place, str]] = {}
        """Parts that are on disk, by this worker: where, and under which name."""
        self._whole: set[Stamp] = set()
        """Those of them whose checkpoint is known to be whole."""
        self._common: int | None = None
        """The newest round of which all islands have told that they have a whole one."""
        self._found: dict[Stamp, list[Part]] = {}
        self._known = 0
        """The newest step of which all parts are known to have been there: parts say so of one
        another, that a run whose only whole checkpoint was lost does not begin anew."""

    @property
    def _outer_text(self) -> str | None:
        return None if self._outer is None else self._outer.text()

    # ---- writing ---------------------------------------------------------------------------------

    def step_over(self, worker: StageWorker, layout: Layout, *, last: bool = False) -> None:
        """After each step. Copies what is due and writes it on a thread of its own; waits before
        that until the one before is written. last: writes whatever the number of the step."""
        step = worker.step
        stamp = (step, layout.digest())
        if worker.name not in layout.workers or stamp in self._written or step == 0:
            return
        if not last and not rules.is_due(step, self._every):
            return
        if self._outer is not None and self._outer.due(step, worker.rounds):
            return  # it is written when the round is made
        self.wait()
        part = layout.workers.index(worker.name)
        groups: dict[str, dict[str, Tensor]] = {name: {} for name in worker.slots}
        for shard, state in worker.owned.items():
            for name, tensor in state.slots().items():
                groups[name][named(shard)] = tensor.clone()
        snapshot = Snapshot(
            round=step,
            revision=0,
            values={
                "spine": worker.spine.digest(),
                "outer": self._outer_text,
                "layout": stamp[1],
                "whole": self._known,
                "part": part,
                "parts": len(layout.workers),
            },
            groups=groups,
        )
        self._thread = threading.Thread(
            target=self._write,
            args=(snapshot, stamp, place_of(self.url, part), layout.epoch),
            name="atoll-checkpoint",
            daemon=True,
        )
        self._thread.start()

    def _write(self, snapshot: Snapshot, stamp: Stamp, place: Place, epoch: int) -> None:
        try:
            written = write(place, snapshot, self._origin, epoch=epoch)
        except OSError as error:
            text = (
                f"step {stamp[0]}: no checkpoint at {place.url}: {error.strerror or error}; "
                "training goes on"
            )
            logger.error("%s", text)
            self._tell("checkpoint_failed", text)
            return
        with self._lock:
            self._written[stamp] = (place, written.name)
        if snapshot.values["part"] == 0:  # one speaks for all
            self._tell(
                "checkpoint",
                f"checkpoint of step {stamp[0]}: {written.manifest.nbytes / 1e6:.1f} MB in "
                f"{written.seconds:.2f} s, the first of {snapshot.values['parts']} parts, "
                f"{place.url}/{written.name}",
            )

    def wait(self, timeout_s: float | None = None) -> None:
        """Until nothing is being written."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def written(self) -> list[Stamp]:
        """What this worker has written and not deleted since: what the others have to hear."""
        with self._lock:
            return sorted(self._written)

    def heard(self, said: Iterable[Sequence[Sequence[object]]]) -> None:
        """What all workers of the layout have written. What is older than the newest checkpoint
        that all have may go, but for as many as are to be kept."""
        everywhere = [{(int(str(step)), str(digest)) for step, digest in own} for own in said]
        whole = set.intersection(*everywhere) if everywhere else set()
        with self._lock:
            self._known = max([self._known, *(step for step, _ in whole)])
            self._whole |= whole & self._written.keys()
            sure = max(filter(self._is_sure, self._whole), default=None)
            if sure is None:
                return
            place, name = self._written[sure]
            old = [stamp for stamp in self._written if stamp[0] < sure[0]]
            for stamp in old:
                del self._written[stamp]
            self._whole &= self._written.keys()
        if old:
            self._retire(place, name, sure[0])

    def _is_sure(self, stamp: Stamp) -> bool:
        """Whether a run could begin there, were it whole."""
        return self._outer is None or self.round_of(stamp) == self._common

    def round_of(self, stamp: Stamp) -> int:
        """How many rounds of the outer method are in it."""
        return 0 if self._outer is None else stamp[0] // self._outer.every

    def rounds(self) -> list[int]:
        """Of which whole checkpoints are known here, and will stay: what other islands hear."""
        with self._lock:
            return sorted(set(map(self.round_of, self._whole)))

    def islands_have(self, rounds: Iterable[Iterable[int]]) -> None:
        """What the islands have said of themselves in a round."""
        common = set.intersection(*map(set, rounds))
        if common:
            self._common = max(common)

    def _retire(self, place: Place, sure: str, step: int) -> None:
        """What is newer than the sure one stays."""
        try:
            known = [entry.known for entry in read.survey(place)]
            newer = sum(one.round > step for one in known)
            known = [one for one in known if one.round <= step]
            for name in rules.expendable(known, keep=self._keep - newer, sure=sure):
                place.delete(name)
            place.clean()
        except OSError as error:
            logger.warning("older checkpoints at %s were not deleted: %s", place.url, error)

    # ---- reading ---------------------------------------------------------------------------------

    def found(self, spine: str) -> list[Stamp]:
        """Checkpoints of which all parts are there, newest first. spine: of this run, its digest.

        A run that was killed before its first checkpoint was whole begins anew. Raises
        CheckpointError when the URL cannot be read, or one was whole and none is, ConfigError when
        another job wrote there, MismatchError when it was another task or had another outer method.
        """

        def is_ours(place: Place, entries: list[Entry]) -> None:
            read.require_job(place, entries, self._origin.job)
            for entry in entries:
                if entry.manifest is None:
                    continue
                values = entry.manifest.values
                if values.get("spine") != spine:
                    raise MismatchError(
                        f"{place.url}/{entry.name} is of another task (seed, layers, "
                        "micro-batches or vshards): name another checkpoint_url to begin anew"
                    )
                if values.get("outer") != self._outer_text:
                    raise MismatchError(
                        f"{place.url}/{entry.name} was written with another outer method, or other "
                        "settings of it: take those, or name another checkpoint_url to begin anew"
                    )

        found = survey(self.url, is_ours)
        self._found = found.whole
        if not self._found and found.lost:
            raise CheckpointError(
                f"{self.url}: of none of {found.torn} checkpoints all parts are there; bring them "
                "back from a backup, or name another URL to begin anew"
            )
        if not self._found and found.torn:
            logger.warning("%s: no checkpoint was whole when the last run ended", self.url)
        return list(self._found)

    def problem(self, stamp: Stamp, *, share: int, of: int) -> str | None:
        """What is wrong with those parts that fall to this reader (number `share` of `of`)."""
        for part in self._found[stamp][share::of]:
            assert part.entry.manifest is not None
            wrong = read.problem_of(part.place, part.entry.name, part.entry.manifest)
            if wrong is not None:
                return f"{part.place.url}/{part.entry.name}: {wrong}"
        return None

    def load(self, stamp: Stamp, targets: Mapping[VShard, Mapping[str, Tensor]]) -> None:
        """Fills the slots of these vshards. Raises CheckpointError."""
        wanted: dict[str, dict[str, Tensor]] = {}
        for shard, slots in targets.items():
            for name, tensor in slots.items():
                wanted.setdefault(name, {})[named(shard)] = tensor
        missing = {(group, name) for group, named_ in wanted.items() for name in named_}
        for part in self._found[stamp]:
            missing -= read.load_some(part.place, part.entry, wanted)
        if missing:
            group, name = min(missing)
            raise CheckpointError(
                f"{self.url}: step {stamp[0]} lacks {group} of vshard {name} and "
                f"{len(missing) - 1} more"
            )
        self._known = max(self._known, stamp[0])
        text = f"restored step {stamp[0]} from {self.url}"
        logger.info("%s, written %.0f s ago", text, time.time() - self._created_s(stamp))
        self._tell("restored", text)

    def _created_s(self, stamp: Stamp) -> float:
        return max(part.entry.known.created_s for part in self._found[stamp])

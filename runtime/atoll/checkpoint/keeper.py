"""A session's checkpoints: when one is due, in the background; the newest one, when a job begins.

The user's thread takes a snapshot at the end of a round, which copies nothing: the method lends
it. A thread `atoll-checkpoint` of its own writes it. A round that calls for a checkpoint while the
last one is still being written goes without, and is counted. Whatever goes wrong while writing is
told (log, metric, event) and never ends the training.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from atoll.checkpoint import read as reading
from atoll.checkpoint import rules, shards
from atoll.checkpoint.write import Origin, Snapshot, retire, write

if TYPE_CHECKING:
    from atoll.checkpoint.manifest import Part
    from atoll.checkpoint.meeting import Ended
    from atoll.checkpoint.metrics import CheckpointMetrics
    from atoll.checkpoint.parted import Parted
    from atoll.checkpoint.places import Place
    from atoll.checkpoint.read import Restored, Targets
    from atoll.config import SessionSettings
    from atoll.metrics import IslandMetrics

logger = logging.getLogger(__name__)

Tell = Callable[[str, str], None]
"""(kind, message) of something that people want to know; from any thread."""


class Saved(Protocol):
    """What a method shows to checkpoints. Called by the user's thread only."""

    line: str
    """Of islands of several processes: what has one beginning (atoll.checkpoint.shards). A joiner
    receives it with the state."""

    @property
    def round(self) -> int:
        """What checkpoints are counted by."""

    @property
    def counts(self) -> str:
        """What `round` counts, for people: "round" or "step"."""

    def snapshot(self) -> Snapshot:
        """The state at the end of the last round, lent for as long as the snapshot lives."""

    def restoring(self, values: dict[str, Any]) -> Targets:
        """Where the tensors of these values belong. Raises MismatchError for another model's."""

    def restored(self, values: dict[str, Any]) -> None:
        """The targets are filled: this is the state now."""


class Checkpoints:
    """Thread: the user's, but for what `_write` does. Owns the writing thread."""

    def __init__(
        self,
        place: Place,
        origin: Origin,
        *,
        every: int,
        keep: int,
        tell: Tell,
        metrics: CheckpointMetrics | None = None,
        parted: Parted | None = None,
    ) -> None:
        """every: rounds between two checkpoints. keep: complete ones that stay, at least 1. parted:
        of an island of several processes, this shard's side, which has the place."""
        self._place, self._origin = place, origin
        self._every, self._keep = every, keep
        self._tell, self._metrics, self._parted = tell, metrics, parted
        self._thread: threading.Thread | None = None
        self._began_s = 0.0
        self._begun: int | None = None  # the last round of which a write was begun
        self._missed = 0  # rounds that went without while this write was under way

    @property
    def line(self) -> str:
        """Of the state that `restore` has begun with."""
        return "" if self._parted is None else self._parted.line

    def is_due(self, round_: int) -> bool:
        """Whether the end of this round calls for a checkpoint."""
        return rules.is_due(round_, self._every)

    def round_over(self, method: Saved, *, epoch: int) -> None:
        """Called by the island whose turn it is to write, at the end of every round."""
        if not self.is_due(method.round):
            return
        if self._writing():
            if not self._missed:  # steps may be short: once for each write
                logger.warning(
                    "%s %d: no checkpoint, the one before has been under way for %.0f s",
                    method.counts,
                    method.round,
                    time.monotonic() - self._began_s,
                )
            self._missed += 1
            self._count("skipped")
            return
        if self._parted is None or rules.is_due(
            method.round, shards.stride(self._every, self._missed)
        ):
            self._begin(method, epoch)

    def finish(self, method: Saved | None, *, epoch: int, timeout_s: float) -> bool:
        """Waits for the write under way; then writes the last round of `method`, if it is not yet.

        Returns whether all is written in time.
        """
        end = time.monotonic() + timeout_s
        self._wait(end)
        if self._writing():
            self._fail(f"the checkpoint was not written within {timeout_s:g} s of closing")
            return False
        if method is not None and method.round > 0 and method.round != self._begun:
            self._begin(method, epoch)
            self._wait(end)
            if self._writing():
                self._fail(
                    f"{method.counts} {method.round}: the last checkpoint was not written within "
                    f"{timeout_s:g} s of closing"
                )
                return False
        return True

    def restore(self, method: Saved) -> Restored | None:
        """The newest whole checkpoint after the method's own round goes to where it belongs.

        None: there is none. Raises what `read.restore` raises; its errors are told, too.
        """

        def damaged(name: str, problem: str) -> None:
            text = f"checkpoint {name} is damaged ({problem}); taking the one before"
            logger.error("%s", text)
            self._count("damaged")
            self._tell("checkpoint_damaged", text)

        restore = (
            partial(reading.restore, self._place) if self._parted is None else self._parted.restore
        )
        found = restore(
            job=self._origin.job,
            newer_than=method.round,
            begin=method.restoring,
            on_damaged=damaged,
        )
        if found is not None:
            text = (
                f"restored {method.counts} {found.manifest.round} from "
                f"{self._place.url}/{found.name}"
            )
            logger.info("%s", text)
            if self._parted is None or self._parted.shard == 0:  # all shards begin with the same
                self._tell("restored", text)
        return found

    # --- within -----------------------------------------------------------------------------------

    def _writing(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _wait(self, end: float) -> None:
        if self._thread is not None:
            self._thread.join(max(0.0, end - time.monotonic()))

    def _begin(self, method: Saved, epoch: int) -> None:
        snapshot = method.snapshot()
        self._begun = snapshot.round
        self._missed = 0
        self._began_s = time.monotonic()
        self._thread = threading.Thread(
            target=self._write,
            args=(snapshot, method.counts, epoch, method.line),
            name="atoll-checkpoint",
            daemon=True,
        )
        self._thread.start()

    def _write(self, snapshot: Snapshot, counts: str, epoch: int, line: str) -> None:
        parted = self._parted
        try:
            part = None if parted is None else parted.part(line)
            written = write(self._place, snapshot, self._origin, epoch=epoch, part=part)
        except Exception as error:  # noqa: BLE001 - the thread's top: training goes on
            self._fail(
                f"{counts} {snapshot.round}: no checkpoint at {self._place.url}: {_text(error)}; "
                "training goes on"
            )
            return
        text = (
            f"{_what(part)} of {counts} {snapshot.round}: {written.manifest.nbytes / 1e6:.1f} MB "
            f"in {written.seconds:.2f} s, {self._place.url}/{written.name}"
        )
        logger.info("%s", text)
        if self._metrics is not None:
            self._metrics.written.inc()
            self._metrics.bytes.inc(written.manifest.nbytes)
            self._metrics.seconds.observe(written.seconds)
            self._metrics.last_success.set(written.manifest.created_s)
            self._metrics.last_round.set(snapshot.round)
        del snapshot  # its tensors can be used again
        try:
            # Parts are told of when the last one is there.
            if parted is None or parted.is_whole(written):
                self._tell("checkpoint", text)
            if parted is None:
                retire(self._place, written, self._keep)
            else:
                parted.retire(written, self._keep)
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(f"older checkpoints at {self._place.url} were not deleted: {_text(error)}")

    def _fail(self, text: str) -> None:
        logger.error("%s", text)
        self._count("failed")
        self._tell("checkpoint_failed", text)

    def _count(self, what: str) -> None:
        if self._metrics is not None:
            getattr(self._metrics, what).inc()


def _what(part: Part | None) -> str:
    return "checkpoint" if part is None else f"checkpoint, shard {part.shard} of {part.shards},"


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def open_checkpoints(
    settings: SessionSettings, island: str, tell: Tell, metrics: IslandMetrics | None, ended: Ended
) -> Checkpoints | None:
    """A session's checkpoints as its settings have them; None: it has none. Raises ConfigError."""
    if settings.checkpoint_url is None:
        return None
    parted = None if settings.shards == 1 else _open_parted(settings, ended)
    from atoll import __version__
    from atoll.checkpoint.metrics import CheckpointMetrics
    from atoll.checkpoint.places import open_place

    return Checkpoints(
        open_place(settings.checkpoint_url) if parted is None else parted.place,
        Origin(job=settings.job, island=island, software=__version__),
        every=settings.checkpoint_every,
        keep=settings.checkpoint_keep,
        tell=tell,
        metrics=None if metrics is None else CheckpointMetrics(metrics.registry),
        parted=parted,
    )


def _open_parted(settings: SessionSettings, ended: Ended) -> Parted:
    from atoll.checkpoint.meeting import Meeting
    from atoll.checkpoint.parted import Parted

    assert settings.checkpoint_url is not None
    shard, count = settings.shard, settings.shards
    name, timeout_s = settings.island or settings.job, settings.form_timeout_s
    meeting = Meeting(name, shard, count, timeout_s=timeout_s, ended=ended)
    return Parted(settings.checkpoint_url, shard, count, meeting)

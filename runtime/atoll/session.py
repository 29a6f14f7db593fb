"""A session: this process's part in a job. `atoll.join()` makes one."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from atoll import errors
from atoll.checkpoint.keeper import Saved, open_checkpoints
from atoll.checkpoint.turns import Turns
from atoll.client import identity_of, make_client
from atoll.collectives.calls import CollectiveCalls
from atoll.collectives.in_flight import Collectives
from atoll.config import SessionSettings, session_settings
from atoll.data.journal import Entry, Restart, append
from atoll.data.ledger import Share
from atoll.data.loading import Dataset
from atoll.leaving import Parting, SigtermNotice, leaving_after, reason_of
from atoll.membership.messages import Departure
from atoll.metrics import IslandMetrics
from atoll.reporting import Reporter
from atoll.state.sync import SharedState, StateSync
from atoll.work import Method, Progress

if TYPE_CHECKING:
    from types import TracebackType

    from atoll import _core
    from atoll.membership.messages import PeerId, View
    from atoll.state.transfer import Fetched

logger = logging.getLogger(__name__)


def join(settings: Mapping[str, object] | None = None) -> Session:
    """Joins the job that the environment names, or makes a job of one when it names none.

    settings: overrides of `SessionSettings` by name; `atoll run` sets what is needed as ATOLL_*.
    Raises ConfigError for a setting that is unknown or impossible, CannotJoin when the coordinator
    is unreachable or refuses (the island is there already, say): a script's end in one line.
    """
    if os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "").lower() in ("1", "true"):
        raise errors.ConfigError(
            "GRPC_ENABLE_FORK_SUPPORT is set: forked data loaders would hang; unset it"
        )
    session = Session(session_settings(dict(settings or {})))
    session._start()
    return session


class Session(CollectiveCalls):
    """Rank, size, collectives, data and metrics of one island. Thread: the user's, unless said.

    It joins the view when it has to: a method has fetched the state, or a collective is called.
    """

    def __init__(self, settings: SessionSettings) -> None:
        self.settings = settings
        """What it was made with."""
        self.island = settings.island or f"{socket.gethostname()}-{os.getpid()}"
        """This island's name in the job."""
        self.progress = Progress(began_s=time.monotonic())
        """What this process has trained, for reports."""
        self._closed = False
        self._entered = False
        self._method: Method | None = None
        self._saving = Turns(self._was_oldest)
        self._client = make_client(
            settings, self.island, on_op_ended=self._op_ended, on_fence_over=self._fence_over
        )
        self._reporter = Reporter(self._client.report)
        self._collectives: Collectives | None = None
        self._metrics: IslandMetrics | None = None
        self._state: StateSync | None = None
        self._sigterm: SigtermNotice | None = None

    # --- who and where ----------------------------------------------------------------------------

    @property
    def peer_id(self) -> PeerId:
        """This incarnation's id, 16 bytes."""
        return self._client.membership().peer

    @property
    def view(self) -> View:
        """The installed view, one member for each island: of islands of several shards, those with
        this one's index. Epoch 0 while this session is in none."""
        return self._client.membership().view

    @property
    def rank(self) -> int | None:
        """This island's place in the view, oldest first; None outside of it. It can change."""
        ids = self.view.ids
        peer = self.peer_id
        return ids.index(peer) if peer in ids else None

    @property
    def shard(self) -> int:
        """Which of its island's peers this one is. The collectives run between equal shards."""
        return self.settings.shard

    @property
    def shards(self) -> int:
        """Peers of each island."""
        return self.settings.shards

    @property
    def size(self) -> int:
        """Islands of the view."""
        return len(self.view.members)

    @property
    def metrics_port(self) -> int:
        """Where this island's metrics are served; 0 when they are not."""
        return self._reporter.now.metrics_port

    @property
    def leaving(self) -> bool:
        """Whether this island was told to leave: SIGTERM, `drain`, or `atoll drain`."""
        return bool(self._client.membership().draining)

    def drain(self, why: str) -> None:
        """This island leaves politely when its round is over, `leave_s` from now at the latest."""
        self._client.drain(why)

    @property
    def engine(self) -> _core.Engine:
        """The native engine, for methods."""
        return self._client.engine

    def members_of(self, epoch: int) -> tuple[PeerId, ...]:
        """The members of a view that this peer was in lately. Raises MisuseError when unknown."""
        membership = self._client.membership()
        if membership.view.epoch == epoch:
            return membership.view.ids
        view = membership.history.get(epoch)
        if view is None:
            raise errors.MisuseError(
                f"view {epoch} is not one of the last that were installed here"
            )
        return view.ids

    def measure_links(self) -> None:
        """Asks for all links to be measured anew; returns at once.

        The islands measure in turn, which takes some seconds and up to 0.7 s of each line's time.
        What has changed comes with a new view, at most every 30 s.
        """
        self._raw_ops()
        self._client.measure_links()

    # --- methods and data -------------------------------------------------------------------------

    def attach(self, method: Method) -> None:
        """Called by a method: makes this session a member that holds the method's state."""
        self._share(method, lambda: self._restore(method))
        self._method = self._saving.saved = method
        self.report(phase="training", round=method.round)

    def share(self, shared: SharedState, saved: Saved | None = None) -> StateSync:
        """Makes this session a member that holds a state of the caller's own, without a method:
        there are then no `batches`, and checkpoints of `saved` alone, which `step_over` writes.
        Raises what `attach` does."""
        sync = self._share(shared, lambda: saved is not None and self._saving.restore(saved))
        self._saving.saved = saved
        return sync

    def step_over(self, epoch: int) -> None:
        """A step of the shared state has committed in view `epoch`: saved, if it is due."""
        self._saving.round_over(epoch)

    def batches(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        rounds: int | None = None,
        epochs: int | None = None,
        seed: int = 0,
        collate: Callable[[Sequence[Any]], Any] | None = None,
        num_workers: int = 0,
        loader: Mapping[str, Any] | None = None,
    ) -> Iterator[Any]:
        """This island's batches: every sample once a pass over all islands, through any churn.

        dataset: map-style, the same on all islands; an attribute `fingerprint`, if it has one, is
        compared. Ends when `rounds` outer rounds or `epochs` passes are over (one pass when neither
        is given). collate: torch's default_collate when None. num_workers: processes that load
        ahead, by torch's DataLoader; loader: further arguments of that (pin_memory=True, say). What
        they loaded and nobody got is not used. Ends with the running round, too, when this island
        is to leave. The method must be made before. Raises MisuseError and MismatchError.
        """
        from atoll.data.batches import Limits, iterate
        from atoll.data.loading import Loader

        if self._method is None:
            raise errors.MisuseError("make the method first: outer = atoll.DiLoCo(session, ...)")
        if batch_size < 1:
            raise errors.MisuseError(f"batch_size must be at least 1, not {batch_size}")
        loading = Loader(dataset, collate, workers=num_workers, options=loader or {})
        over = Parting(lambda: self.leaving, self.shards)
        limits = Limits(rounds=rounds, epochs=epochs, is_over=over)
        batches = iterate(self._method, loading, limits, batch_size=batch_size, seed=seed)
        return leaving_after(batches, lambda: over.decided, self._leave)

    # --- what others see --------------------------------------------------------------------------

    def report(self, **fields: Any) -> None:
        """Tells the coordinator fields of `Report` (validation_loss=2.3, say); others stay.

        From any thread. Raises MisuseError for a field that there is not.
        """
        report = self._reporter.update(**fields)
        if self._metrics is not None and "validation_loss" in fields:
            self._metrics.set_if_known("validation", report.validation_loss)

    def heal(self, revision: int, donors: frozenset[PeerId]) -> Fetched | None:
        """Called by a method whose state is wrong: takes that of `donors` before the next op.

        None when they are all gone, or did not serve it within half an op's time. Raises what
        ended the session.
        """
        if self._state is None:
            return None
        return self._state.heal(revision, donors, timeout_s=self.settings.op_timeout_s / 2)

    def count(self, what: Literal["refused", "unpaired"]) -> None:
        """Called by a method. refused: this island's contribution was left out for not being
        finite; unpaired: its partner of a round was lost, or came too late."""
        if self._metrics is not None:
            getattr(self._metrics, what).inc()

    def round_over(
        self,
        *,
        round_: int,
        epoch: int,
        data_epoch: int,
        used: tuple[Share, ...],
        loss: float,
        digest: str,
        contributed: bool,
        sync_s: float,
        healed: str = "",
    ) -> None:
        """Called by a method when a round has committed: report, metrics, the ledger's journal.

        healed: what was wrong with this island's state, if it was mended after this round.
        """
        stats = self.engine.stats()
        elapsed = max(1e-9, time.monotonic() - self.progress.began_s)
        round_s = self.progress.take_round_s()
        before = self._reporter.now.tokens
        self.report(
            phase="training",
            round=round_,
            loss=loss,
            tokens=self.progress.tokens,
            tokens_per_s=self.progress.tokens / elapsed,
            sync_s=sync_s,
            round_s=round_s,
            sent_bytes=sum(link.sent_bytes for link in stats.links),
            received_bytes=sum(link.received_bytes for link in stats.links),
            digest=digest,
            contributed=contributed,
            epoch=epoch,
        )
        if healed:
            self._reporter.notice("healed", healed)
        if self._metrics is not None:
            self._metrics.state.heals.inc(bool(healed))
            trained = self.progress.tokens - before
            self._metrics.round_over(round_, loss, trained, round_s=round_s, sync_s=sync_s)
        self._journal(
            Entry(
                time_s=time.time(),
                round=round_,
                epoch=epoch,
                data_epoch=data_epoch,
                digest=digest,
                used={share.peer.hex(): share.spans for share in used},
            )
        )
        self._saving.round_over(epoch)

    # --- the end ----------------------------------------------------------------------------------

    def close(self, timeout_s: float = 10.0) -> None:
        """Leaves politely and stops everything; idempotent, over within about `timeout_s`.

        The island that writes the checkpoints first completes the last one, which may take
        `checkpoint_close_s` more.
        """
        self._close(reason_of(None, self.leaving), timeout_s)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close(reason_of(error, self.leaving))

    # --- within -----------------------------------------------------------------------------------

    def _share(self, shared: SharedState, restore: Callable[[], bool]) -> StateSync:
        ops = self._raw_ops()
        if self._state is not None:
            raise errors.MisuseError(
                "this session already has a state to share; join once more for another"
            )
        self.report(phase="syncing")
        state = StateSync(self._client, ops, shared, observe=self._state_fetched)
        state.attach(timeout_s=self.settings.form_timeout_s, restore=restore)
        self._state = state
        self._entered = True
        self.progress.began_s = time.monotonic()
        self.report(phase="training")
        return state

    def _close(self, reason: Departure, timeout_s: float = 10.0) -> None:
        if self._closed:
            return
        self._closed = True
        if self._sigterm is not None:
            self._sigterm.close()
        try:
            if self._client.membership().ended is None:
                if reason in (Departure.FINISHED, Departure.DRAINED):
                    self._saving.finish(self.settings.checkpoint_close_s)
                self._client.leave(reason, timeout_s)
        finally:
            self._client.close()
            self.engine.close()
            if self._collectives is not None:
                self._collectives.close()
            if self._metrics is not None:
                self._metrics.close()

    def _leave(self) -> None:
        if self.settings.coordinator is not None:
            self._client.leave(Departure.DRAINED, 10.0)
            self._saving.finish(self.settings.checkpoint_close_s)

    def _start(self) -> None:
        self._client.start()
        self._sigterm = SigtermNotice(self._client.drain, self.settings.leave_s)
        self._collectives = Collectives(
            self.engine,
            op_timeout_s=self.settings.op_timeout_s,
            explain=self._explain,
            members_of=self._count_of,
            observe=self._observe,
            correct=self._client.links_carry if self.settings.probe else None,
        )
        if self.settings.metrics_port >= 0:
            self._metrics = IslandMetrics(
                job=self.settings.job,
                island=self.island,
                read_engine=self.engine.stats,
                read_peers=lambda: self._client.membership(),
            )
            try:
                port = self._metrics.serve(self.settings, identity_of(self.settings))
            except errors.ConfigError:
                self.close()
                raise
            self.report(metrics_port=port)
        try:
            self._saving.checkpoints = open_checkpoints(
                self.settings,
                self.island,
                self._reporter.notice,
                self._metrics,
                lambda: self._client.membership().ended,
            )
        except errors.ConfigError:
            self.close()
            raise

    def _was_oldest(self, epoch: int) -> bool:
        """Whether this island was the oldest in a round's view, which its members agree on."""
        try:
            return self.members_of(epoch)[0] == self.peer_id
        except errors.MisuseError:
            return False

    def _restore(self, method: Method) -> bool:
        if not self._saving.restore(method):
            return False
        self._journal(Restart(time_s=time.time(), restored=method.round, epoch=self.view.epoch))
        return True

    def _raw_ops(self) -> Collectives:
        if self._closed or self._collectives is None:
            raise errors.SessionClosed("the session is closed")
        return self._collectives

    def _ops(self) -> Collectives:
        """The collectives, once this session is in the view."""
        ops = self._raw_ops()
        if not self._entered:
            self._client.ready()
            self._client.wait(lambda membership: membership.member, self.settings.form_timeout_s)
            self._entered = True
        return ops

    def _state_fetched(self, fetched: Fetched) -> None:
        if self._metrics is not None:
            self._metrics.state.fetched(fetched)

    def _op_ended(self, op: int) -> None:
        if self._collectives is not None:
            self._collectives.ended(op)

    def _fence_over(self, kind: str, seconds: float) -> None:
        self.progress.fence_s = seconds
        if self._metrics is not None:
            self._metrics.fence.labels(kind=kind).observe(seconds)

    def _observe(self, kind: str, outcome: _core.Outcome) -> None:
        if self._metrics is not None:
            self._metrics.op_over(kind, outcome)

    def _count_of(self, epoch: int) -> int:
        """Members of that view; 0 when it is not known any more."""
        try:
            return len(self.members_of(epoch))
        except errors.MisuseError:
            return 0

    def _explain(self, fault: errors.AtollError) -> errors.AtollError:
        """An op that ended because the session did says why the session did."""
        ended = self._client.membership().ended
        return ended if isinstance(fault, errors.SessionClosed) and ended is not None else fault

    def _journal(self, entry: Entry | Restart) -> None:
        if self.settings.log_dir is not None and self.shard == 0:  # every ring has a ledger
            append(self.settings.log_dir, self.island, entry)

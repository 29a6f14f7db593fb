"""A session: this process's part in a job. `atoll.join()` makes one."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from atoll import errors
from atoll.client import make_client
from atoll.config import SessionSettings, session_settings
from atoll.data.batches import Dataset, RoundMethod
from atoll.data.journal import Entry, line_of
from atoll.data.ledger import Share
from atoll.engine import Collectives, Handle, check_tensor
from atoll.membership.messages import Departure, Report
from atoll.metrics import IslandMetrics
from atoll.state.sync import SharedState, attach

if TYPE_CHECKING:
    from types import TracebackType

    import torch

    from atoll import _core
    from atoll.membership.messages import PeerId, View

logger = logging.getLogger(__name__)


class Method(RoundMethod, SharedState, Protocol):
    """A training method: rounds for the data, state for joiners."""


@dataclass(slots=True)
class Progress:
    """What this island has done so far."""

    tokens: int = 0
    began_s: float = 0.0


def join(settings: Mapping[str, object] | None = None) -> Session:
    """Joins the job that the environment names, or makes a job of one when it names none.

    settings: overrides of `SessionSettings` by name; `atoll run` sets what is needed as ATOLL_*.
    Raises ConfigError for a setting that is unknown or impossible, CannotJoin when the coordinator
    is unreachable or refuses (another job, another version, the island is there already).
    """
    if os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "").lower() in ("1", "true"):
        raise errors.ConfigError(
            "GRPC_ENABLE_FORK_SUPPORT is set: forked data loaders would hang; unset it"
        )
    chosen = session_settings(dict(settings or {}))
    session = Session(chosen)
    session._start()
    return session


def is_success(error: BaseException | None) -> bool:
    """Whether a script that leaves its session by `error` has come to its end."""
    return error is None or (isinstance(error, SystemExit) and not error.code)


class Session:
    """Rank, size, collectives, data and metrics of one island. Thread: the user's, unless said.

    A session joins the view when it first has to: a method has fetched the shared state, or a
    collective is called.
    """

    def __init__(self, settings: SessionSettings) -> None:
        self.settings = settings
        self.island = settings.island or f"{socket.gethostname()}-{os.getpid()}"
        self.progress = Progress(began_s=time.monotonic())
        self._closed = False
        self._entered = False
        self._method: Method | None = None
        self._report = Report()
        self._client = make_client(settings, self.island, on_op_ended=self._op_ended)
        self._collectives: Collectives | None = None
        self._metrics: IslandMetrics | None = None

    # --- who and where ----------------------------------------------------------------------------

    @property
    def peer_id(self) -> PeerId:
        """This incarnation's id, 16 bytes."""
        return self._client.membership().peer

    @property
    def view(self) -> View:
        """The installed view; epoch 0 while this session is in none."""
        return self._client.membership().view

    @property
    def rank(self) -> int | None:
        """This island's place in the view, oldest first; None outside of it. It can change."""
        ids = self.view.ids
        peer = self.peer_id
        return ids.index(peer) if peer in ids else None

    @property
    def size(self) -> int:
        """Members of the view."""
        return len(self.view.members)

    @property
    def metrics_port(self) -> int:
        """Where this island's metrics are served; 0 when they are not."""
        return self._report.metrics_port

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

    # --- collectives ------------------------------------------------------------------------------

    def all_reduce(
        self,
        source: torch.Tensor,
        target: torch.Tensor | None = None,
        *,
        channel: int = 0,
        plan: str = "auto",
    ) -> Handle:
        """Starts the sum of all members' `source`, fp32, any shape, the same size on all.

        target receives it (a new tensor when None: `handle.target`); `source` stays intact until
        the op commits. plan: auto, ring or direct. Ops of one channel run in order. Raises
        TensorError for a tensor that is not fp32, contiguous and on the CPU, and MisuseError.
        """
        check_tensor("source", source)
        out = source.new_empty(source.shape) if target is None else target
        handle = self._ops().all_reduce(source, out, channel=channel, plan=plan)
        handle.target = out
        return handle

    def broadcast(self, tensor: torch.Tensor, *, root: int, channel: int = 0) -> Handle:
        """Starts sending rank `root`'s tensor to all; `handle.target` receives it."""
        check_tensor("tensor", tensor)
        ops = self._ops()
        ids = self.view.ids
        if not 0 <= root < len(ids):
            raise errors.MisuseError(f"root {root} is no rank of a view of {len(ids)}")
        out = tensor.new_empty(tensor.shape)
        handle = ops.broadcast(tensor, out, root=ids[root], channel=channel)
        handle.target = out
        return handle

    def barrier(self, *, channel: int = 0) -> None:
        """Returns when every member has called it."""
        self._ops().barrier(channel=channel).wait()

    def exchange(
        self,
        source: torch.Tensor,
        *,
        partner: PeerId,
        tag: int,
        channel: int = 0,
        timeout_s: float = 60.0,
    ) -> Handle:
        """Starts swapping `source` with one member that names the same tag; best effort.

        `handle.target` receives the partner's. Waiting raises PeerLost or DeadlineExceeded when the
        partner is gone or late.
        """
        check_tensor("source", source)
        out = source.new_empty(source.shape)
        handle = self._ops().exchange(
            source, out, partner=partner, tag=tag, channel=channel, timeout_s=timeout_s
        )
        handle.target = out
        return handle

    # --- methods and data -------------------------------------------------------------------------

    def attach(self, method: Method) -> None:
        """Called by a method: makes this session a member that holds the method's state."""
        ops = self._raw_ops()
        if self._method is not None:
            raise errors.MisuseError(
                "this session already has a method; join once more for another"
            )
        self.report(phase="syncing")
        attach(self._client, ops, method, timeout_s=self.settings.form_timeout_s)
        self._entered = True
        self._method = method
        self.progress.began_s = time.monotonic()
        self.report(phase="training", round=method.round)

    def batches(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        rounds: int | None = None,
        epochs: int | None = None,
        seed: int = 0,
        collate: Callable[[Sequence[Any]], Any] | None = None,
    ) -> Iterator[Any]:
        """This island's batches: every sample once a pass over all islands, through any churn.

        dataset: map-style, the same on all islands; an attribute `fingerprint`, if it has one, is
        compared. Ends when `rounds` outer rounds or `epochs`
        passes are over (one pass when neither is given). collate: torch's default_collate when
        None. The method (DiLoCo) must be made before. Raises MisuseError and MismatchError.
        """
        from atoll.data.batches import iterate

        if self._method is None:
            raise errors.MisuseError("make the method first: outer = atoll.DiLoCo(session, ...)")
        if batch_size < 1:
            raise errors.MisuseError(f"batch_size must be at least 1, not {batch_size}")
        from torch.utils.data import default_collate

        if rounds is None and epochs is None:
            epochs = 1
        return iterate(
            self._method,
            self.peer_id,
            dataset,
            batch_size=batch_size,
            rounds=rounds,
            epochs=epochs,
            seed=seed,
            collate=collate or (lambda samples: default_collate(list(samples))),
        )

    # --- what others see --------------------------------------------------------------------------

    def report(self, **fields: Any) -> None:
        """Tells the coordinator fields of `Report` (validation_loss=2.3, say); others stay."""
        try:
            self._report = replace(self._report, **fields)
        except TypeError:
            from atoll.config import nearest

            known = Report.__dataclass_fields__
            wrong = next(name for name in fields if name not in known)
            near = nearest(wrong, known)
            hint = f", did you mean '{near}'?" if near else ""
            raise errors.MisuseError(f"a report has no field '{wrong}'{hint}") from None
        if self._metrics is not None and "validation_loss" in fields:
            self._metrics.set_if_known("validation", self._report.validation_loss)
        self._client.report(self._report)

    def count_refused(self) -> None:
        """Called by a method: this island's contribution was left out for not being finite."""
        if self._metrics is not None:
            self._metrics.refused.inc()

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
    ) -> None:
        """Called by a method when a round has committed: report, metrics, the ledger's journal."""
        stats = self.engine.stats()
        elapsed = max(1e-9, time.monotonic() - self.progress.began_s)
        before = self._report.tokens
        self.report(
            phase="training",
            round=round_,
            loss=loss,
            tokens=self.progress.tokens,
            tokens_per_s=self.progress.tokens / elapsed,
            sync_s=sync_s,
            sent_bytes=sum(link.sent_bytes for link in stats.links),
            received_bytes=sum(link.received_bytes for link in stats.links),
            digest=digest,
            contributed=contributed,
            epoch=epoch,
        )
        if self._metrics is not None:
            self._metrics.rounds.inc()
            self._metrics.round.set(round_)
            self._metrics.set_if_known("loss", loss)
            self._metrics.tokens.inc(self.progress.tokens - before)
            self._metrics.sync_seconds.inc(sync_s)
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

    # --- the end ----------------------------------------------------------------------------------

    def close(self, timeout_s: float = 10.0) -> None:
        """Leaves politely and stops everything; idempotent, over within about `timeout_s`."""
        self._close(Departure.FINISHED, timeout_s)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The others need not care, but who looks at the job does: "finished" would be a lie.
        self._close(Departure.FINISHED if is_success(error) else Departure.CRASHED)

    # --- within -----------------------------------------------------------------------------------

    def _close(self, reason: Departure, timeout_s: float = 10.0) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if self._client.membership().ended is None:
                self._client.leave(reason, timeout_s)
        finally:
            self._client.close()
            self.engine.close()
            if self._metrics is not None:
                self._metrics.close()

    def _start(self) -> None:
        self._client.start()
        self._collectives = Collectives(
            self.engine,
            op_timeout_s=self.settings.op_timeout_s,
            explain=self._explain,
            observe=self._observe,
        )
        if self.settings.metrics_port >= 0:
            self._metrics = IslandMetrics(
                job=self.settings.job,
                island=self.island,
                read_engine=self.engine.stats,
                read_view=lambda: self.view,
            )
            try:
                port = self._metrics.serve(self.settings.metrics_port, self.settings.bind_host)
            except errors.ConfigError:
                self.close()
                raise
            self.report(metrics_port=port)

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

    def _op_ended(self, op: int) -> None:
        if self._collectives is not None:
            self._collectives.ended(op)

    def _observe(self, kind: str, seconds: float) -> None:
        if self._metrics is not None:
            self._metrics.latency.labels(kind=kind).observe(seconds)

    def _explain(self, fault: errors.AtollError) -> errors.AtollError:
        """An op that ended because the session did says why the session did."""
        ended = self._client.membership().ended
        return ended if isinstance(fault, errors.SessionClosed) and ended is not None else fault

    def _journal(self, entry: Entry) -> None:
        if self.settings.log_dir is None:
            return
        path = self.settings.log_dir / f"ledger-{self.island}.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(line_of(entry) + "\n")
        except OSError as error:
            logger.warning("%s: %s; the journal of samples is incomplete", path, error.strerror)

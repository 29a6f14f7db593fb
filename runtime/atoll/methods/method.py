"""What all methods are: rounds of inner steps, exchanges between them, a state for others.

A method is one file with a class on `OuterMethod`. It says when exchanges begin and are taken up
(`_events`), what an island puts aside for one (`_stage`), how it travels and what comes of it
(`_exchange`, which may run while the model computes), and what the model gets (`_into_model`).
Rounds, data, joiners, checkpoints, healing, reports and errors are here and in `shared`.

Thread: the user's, but for `_exchange`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from atoll import errors
from atoll.data import ledger as ledgers
from atoll.methods import schedule
from atoll.methods.background import Background, Inline
from atoll.methods.exchange import Exchanged, Staged, Under
from atoll.methods.healing import clear_if_broken
from atoll.methods.layout import Layout
from atoll.methods.parity import Parity, described, donors, outvoted
from atoll.methods.schedule import Do, Event
from atoll.methods.shared import SharedOuter
from atoll.methods.work import Tally, Work, seconds_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from atoll.methods.layout import Split
    from atoll.methods.outer_state import Slot
    from atoll.session import Session

logger = logging.getLogger(__name__)

MOST_REFUSALS = 3
"""Contributions in a row that are not finite: then the island leaves."""

WEIGHTS = ("samples", "tokens", "steps", "equal")


class OuterMethod(SharedOuter):
    """Wraps a model and its inner optimizer; call `step()` after each inner step."""

    consistency: Literal["identical", "divergent"] = "identical"
    """identical: all members hold the same outer state, bit by bit, and it is checked."""

    def __init__(
        self,
        session: Session,
        model: torch.nn.Module,
        inner: torch.optim.Optimizer,
        *,
        sync_every: int,
        identity: dict[str, Any],
        kinds: Sequence[str] = ("theta", "momentum"),
        split: Split | None = None,
        background: bool = False,
        lead: bool = False,
        every: str | None = None,
        weights: str = "samples",
        channel: int = 1,
        parity_every: int = 1,
    ) -> None:
        """background: exchanges run while the model computes. lead: the next round begins before
        the last one's exchange is over. every: "60s": a round ends after so long, at the next step,
        or after sync_every steps if that is sooner. Raises MisuseError and TensorError."""
        from atoll.collectives.options import one_of

        if sync_every < 1:
            raise errors.MisuseError(f"sync_every must be at least 1, not {sync_every}")
        if parity_every < 0:
            raise errors.MisuseError(f"parity_every must be at least 0, not {parity_every}")
        self._every_s = None if every is None else seconds_of(every)
        if every is not None:
            identity = {**identity, "every": every}
        super().__init__(
            session,
            Layout(model, split),
            channel=channel,
            kinds=kinds,
            identity={"method": type(self).__name__, "sync_every": sync_every, **identity},
            lead=lead,
        )
        self.sync_every = sync_every
        self.inner = inner
        self.running = 0
        self.turn = 0
        self.just_synced = False
        self._fragments = len(self._layout.fragments)
        self._weigh_by = one_of("weights", weights, WEIGHTS)
        self._parity = Parity(0 if self.consistency == "divergent" else parity_every)
        self._background = Background() if background else None
        self._tally = Tally()
        self._marks = [Work()] * self._fragments  # when each fragment's last exchange began
        self._began = Work()  # the running round
        self._inside: dict[int, bool] = {}  # by round: this island had a share
        self._launched = 0
        self._staged: deque[Staged] = deque()
        self._flights: deque[Under] = deque()
        self._events: deque[Event] = deque()
        self._due = sync_every
        self._next_at = sync_every
        self._ends_at_s = 0.0
        self._mended = ""  # not told yet
        self._refusals = 0
        self._lock = threading.RLock()  # a stand-in may take part in a round for the user's thread
        self._anchor: tuple[Slot, object] | None = None

    # --- the user's loop --------------------------------------------------------------------------

    def step(self, loss: torch.Tensor | float | None = None) -> None:
        """Counts one inner step; does what is due after it.

        loss: of this step, a scalar; the round's mean is reported. Raises Expelled, SessionClosed,
        MismatchError, DeadlineExceeded, or NotFinite for an island whose parameters have not been
        finite for too long; after an error the outer state is what it was before the exchange.
        """
        self.just_synced = False
        self._tally.step(loss)
        if self._tally.steps >= self._next_at:
            self._run(self._tally.steps - self._began.steps)

    def finish(self) -> None:
        """Waits for the exchanges under way and takes them up. `Session.batches` ends with it."""
        while self._flights:
            self._absorb()

    @abstractmethod
    def bytes_per_round(self, members: int) -> float:
        """Payload that this island sends in a round of so many members, by formula."""

    # --- the data's side (atoll.data.batches) -----------------------------------------------------

    @property
    def share(self) -> ledgers.Spans:
        """This island's positions of the running round."""
        slot = self._slot()
        return () if slot is None else self._shares()[slot].spans

    @property
    def data_epoch(self) -> int:
        """The pass that the running round's shares are of."""
        ledger = self._ledger
        return ledger.share_epoch if self.running == self.round else ledger.ahead_epoch

    def open_ledger(self, plan: ledgers.Plan) -> None:
        """Gives the members of the running round their samples of a data set."""
        self._ledger = ledgers.opened(self._ledger, plan)
        self.publish()

    def begin_share(self, batches: int) -> None:
        """The round ends after so many of this island's batches."""
        self._due = max(1, batches)
        self._look_ahead()

    def drew(self, samples: int, tokens: int) -> None:
        """The user got a batch."""
        self._tally.drew(samples, tokens)
        self._session.progress.tokens += tokens

    def end_round(self) -> None:
        """Does what is left to do in the running round, and begins the next one.

        Called by the data when this island has nothing (more) to train on.
        """
        self._run(None)

    # --- what a method says -----------------------------------------------------------------------

    @abstractmethod
    def _events_of(self, round_: int) -> tuple[Event, ...]:
        """What is due in a round, in order. Ends with or after the launch that closes it."""

    @abstractmethod
    def _stage(self, index: int, fragment: int, weight: float, trained: int) -> Staged:
        """Puts aside what op `index` is to exchange. The model's parameters change after this."""

    @abstractmethod
    def _exchange(self, staged: Staged) -> Exchanged:
        """Exchanges and computes what comes of it. Touches neither model nor present state."""

    def _launching(self, staged: Staged) -> None:
        """The op goes off now: what else belongs to this moment."""

    def _absorbed(self) -> None:
        """The present state has absorbed one more op: joiners may have it."""
        self.publish()

    @abstractmethod
    def _into_model(self, fragment: int, staged: Staged, exchanged: Exchanged) -> None:
        """The present state has advanced: the model's parameters get their part of it."""

    # --- within: rounds ---------------------------------------------------------------------------

    def _attach(self, earlier: Mapping[str, Any] | None) -> None:
        """Joins the view and begins. The last line of a method's constructor."""
        if earlier is not None:
            self._begin_from(earlier)
        self._session.attach(self)
        self._launched = self._index
        self._begin_round(self.round)

    def _shares(self) -> tuple[ledgers.Share, ...]:
        return self._ledger.shares if self.running == self.round else self._ledger.ahead

    def _slot(self) -> int | None:
        return ledgers.slot_in(self._shares(), self._session.peer_id)

    def _begin_round(self, round_: int) -> None:
        self.running = round_
        self.turn += 1
        self._inside[round_] = self._slot() is not None
        self._inside.pop(round_ - 3, None)
        self._began = self._tally.now
        self._due = self.sync_every
        if self._every_s is not None:
            self._ends_at_s = time.monotonic() + self._every_s
        self._plan_events()

    def _plan_events(self) -> None:
        """What is left of the running round: everything that has not been done yet."""
        left = []
        for event in self._events_of(self.running):
            launch = event.do in (Do.STAGE, Do.LAUNCH)
            if event.index >= (self._launched if launch else self._index):
                left.append(event)
        self._events = deque(left)
        self._look_ahead()

    def _look_ahead(self) -> None:
        """When `step` has to do something. An island without a share has nothing to wait for."""
        if not self._events or not self._inside[self.running] or self._every_s is not None:
            self._next_at = 0  # `_run` looks
        else:
            self._next_at = self._began.steps + min(self._due, self._events[0].at)

    def _run(self, steps: int | None) -> None:
        """Does what is due after so many steps of the round (None: all), in its order."""
        with self._lock:
            if not self._inside[self.running] or self._is_time_over():
                steps = None
            self._run_events(steps)

    def _is_time_over(self) -> bool:
        return self._every_s is not None and time.monotonic() >= self._ends_at_s

    def _run_events(self, steps: int | None) -> None:
        while self._events and (steps is None or steps >= min(self._due, self._events[0].at)):
            self._do(self._events.popleft())
        if self._events:
            self._look_ahead()
        else:
            self._begin_round(self.running + 1)

    def _do(self, event: Event) -> None:
        match event.do:
            case Do.STAGE:
                self._staged.append(self._put_aside(event.index))
            case Do.LAUNCH:
                self._launch()
            case Do.ABSORB | Do.ABSORB_AT_ONCE:
                self._absorb()

    # --- within: one exchange ---------------------------------------------------------------------

    def _put_aside(self, index: int) -> Staged:
        fragment = schedule.fragment_of(index, self._fragments)
        now = self._tally.now
        done, self._marks[fragment] = now - self._marks[fragment], now
        inside = self._inside.get(schedule.round_of(index, self._fragments), False)
        weight = self._weight_of(done) if inside else 0.0
        in_round = now - self._began
        trained = in_round.samples if self._ledger.plan is not None else in_round.steps
        closes = schedule.closes(index, self._fragments)
        return self._stage(index, fragment, weight, trained if closes and weight else 0)

    def _weight_of(self, done: Work) -> float:
        match self._weigh_by:
            case "samples" if self._ledger.plan is not None:
                return float(done.samples)
            case "tokens" if self._ledger.plan is not None:
                return float(done.tokens)
            case "equal":
                return 1.0 if done.steps else 0.0
            case _:
                return float(done.steps)

    def _launch(self) -> None:
        staged = self._staged.popleft()
        self._launching(staged)
        self._launched += 1
        self._flights.append(self._under(staged))

    def _under(self, staged: Staged) -> Under:
        closes = schedule.closes(staged.index, self._fragments)
        loss = self._tally.take_loss() if closes and not staged.late else math.nan

        def work() -> Exchanged:
            return self._exchange(staged)

        flight = Inline(work) if self._background is None else self._background.start(work)
        return Under(staged=staged, flight=flight, loss=loss)

    def _absorb(self, *, behind: bool = False) -> None:
        """Takes up the oldest exchange under way: one more op is part of the state. behind: the
        model, which is at an earlier state, stays there."""
        under = self._flights.popleft()
        staged = under.staged
        began = time.monotonic()
        if not under.flight.done():
            self._session.report(phase="exchanging")
        try:
            exchanged = under.flight.result()
        except (errors.MismatchError, errors.OpAborted, errors.DeadlineExceeded):
            self._failed(under)
            raise
        if exchanged.slot is not None:
            self._state.advance(staged.fragment, exchanged.slot)
        self._revision += 1
        self._index += 1
        closing = schedule.closes(staged.index, self._fragments)
        data_epoch = self._ledger.epoch
        used = self._settle(exchanged) if closing else ()
        round_ = self.round
        healed = "" if behind else self._healed(exchanged)
        if behind:
            self._absorbed()
        elif not healed:
            self._absorbed()
            self._into_model(staged.fragment, staged, exchanged)
        self._anchor = None
        self._refuse(exchanged.refused)
        self._mended = self._mended or healed
        if closing:
            self._session.round_over(
                round_=round_,
                epoch=exchanged.epoch,
                data_epoch=data_epoch,
                used=used,
                loss=float(under.loss),
                digest=self._digest if self.consistency == "identical" else "",
                contributed=staged.weight > 0 and not exchanged.refused,
                sync_s=time.monotonic() - began,
                healed=self._mended,
            )
            self._mended = ""
            self.just_synced = not behind

    def _settle(self, exchanged: Exchanged) -> tuple[ledgers.Share, ...]:
        """The round is over: whose samples are in the state, and who gets which next."""
        members = exchanged.members
        brought = dict(zip(members, exchanged.weights, strict=True))
        said = dict(zip(members, exchanged.notes, strict=True))
        self._ledger, used = ledgers.settled(
            self._ledger,
            [brought.get(share.peer, 0.0) for share in self._ledger.shares],
            trained={peer: note.trained for peer, note in said.items()},
            late=[peer for peer, note in said.items() if note.late],
        )
        if exchanged.batch_size:
            self._ledger = ledgers.grown(self._ledger, exchanged.batch_size)
        self._ledger = ledgers.assigned(self._ledger, members)
        self.round += 1
        return used

    def _failed(self, under: Under) -> None:
        """An op that failed on all members alike counts as one, and has changed nothing.

        Where nothing else is under way it is done again: its events are due once more. Otherwise
        its exchange is left out, and if it was to close a round, that round's shares go back.
        """
        self._revision += 1
        if not self._flights and not self._ledger.lead:
            self._launched -= 1
            self._marks[under.staged.fragment] = self._began
            self._plan_events()
        else:
            self._index += 1
            if schedule.closes(under.staged.index, self._fragments):
                peers = [share.peer for share in self._ledger.shares]
                self._ledger, _ = ledgers.settled(self._ledger, [0.0] * len(peers))
                self._ledger = ledgers.assigned(self._ledger, peers)
                self.round += 1
        self.publish()

    def _healed(self, exchanged: Exchanged) -> str:
        """Takes the others' state if this island's is wrong; says what was wrong with it."""
        votes = [note.vote for note in exchanged.notes]
        peer = self._session.peer_id
        if exchanged.sound and not outvoted(votes, exchanged.members, peer):
            return ""
        whose = donors(votes, exchanged.members, peer)
        # The others pass no op that this island has not begun, so they keep the state after the
        # last one that it has.
        if self._flights:
            self.publish()
            self.finish()
        self._session.engine.unpublish()  # nobody is to fetch what is wrong
        fetched = self._session.heal(self._revision, whose)
        if fetched is None:
            logger.error("round %d: nobody is left to mend this island's state from", self.round)
            return ""
        for staged in self._staged:  # what was taken from the state that was wrong
            staged.leave_out()
        self.publish()
        return f"after round {self.round}: {described(fetched)}"

    def _refuse(self, refused: bool) -> None:
        """What becomes of an island whose parameters were not finite: it begins again from the
        shared ones, with a fresh inner optimizer if that is broken, too; or it leaves."""
        if not refused:
            self._refusals = 0
            return
        self._refusals += 1
        self._session.count("refused")
        if self._refusals >= MOST_REFUSALS:
            raise errors.NotFinite(
                f"this island's parameters were not finite in {self._refusals} exchanges in a row; "
                "look at its learning rate, data and hardware"
            )
        self._theta_into_model()
        if clear_if_broken(self.inner):
            logger.error("the inner optimizer's state was not finite; it begins anew")

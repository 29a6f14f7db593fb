"""NoLoCo: random pairs instead of a collective (arXiv 2506.10911)."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Literal

from atoll import errors
from atoll.methods import gossip, schedule, traffic
from atoll.methods.blocks import Blocks
from atoll.methods.exchange import Exchanged, Staged
from atoll.methods.meeting import Meeting, Met
from atoll.methods.method import OuterMethod

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from atoll.data import ledger as ledgers
    from atoll.membership.messages import PeerId
    from atoll.methods.outer_state import Slot
    from atoll.methods.schedule import Event
    from atoll.session import Session

logger = logging.getLogger(__name__)

_MOST_HELD = 20
"""Rounds for which a published state stays because somebody is fetching it."""


class NoLoCo(OuterMethod):
    """Every `sync_every` inner steps an island meets one other and pulls towards it.

    Who meets whom is a seeded permutation by view and round that all know (one group of three if
    their number is odd). Slow weights phi are swapped during the inner steps, theta - phi after
    them: delta <- alpha * delta + beta * mean(theta - phi) + gamma * (mean(phi) - phi);
    phi <- phi + delta; the model takes phi. There is no collective, so nobody waits for all.

    Consistency class: divergent. Bytes per round and island: 2 numel fp32 to each partner, half of
    them during the inner steps.

    Churn. A partner that is lost, or `deadline_s` late, makes the round an unpaired one (counted in
    `unpaired`): the island takes the step with its own part alone. When the view changes in a
    round, the pairs of the new view meet. Denominator: those who met. Anchor: an island's own phi.
    Momentum (delta): an island's own, never sent but to a joiner, who copies one member's phi,
    delta, round and data position and takes part from its next round. Residual: none.

    Data: shares follow from a count of blocks that every island advances by the members it sees, so
    no samples are used twice or left out in a pass while members stay the same; every change may
    cost or repeat about one round's samples.
    """

    consistency: Literal["identical", "divergent"] = "divergent"

    def __init__(
        self,
        session: Session,
        model: torch.nn.Module,
        inner: torch.optim.Optimizer,
        *,
        sync_every: int = 50,
        alpha: float = 0.5,
        beta: float = 0.7,
        gamma: float = 0.7,
        seed: int = 0,
        deadline_s: float = 30.0,
        every: str | None = None,
        channel: int = 1,
        earlier: Mapping[str, Any] | None = None,
    ) -> None:
        """Joins the view and copies a member's state into the model, or brings its own.

        alpha, beta, gamma: of the paper; gamma must be below the bound of `gossip.gamma_bound`.
        seed: of the pairs, the same on all. deadline_s: so long a round's partner is waited for.
        Raises what `DiLoCo` does, and MisuseError with the bound for settings that are not stable.
        """
        gossip.check_stable(alpha, gamma)
        gossip.check_stable(alpha, gamma, group=3)
        if not deadline_s > 0:
            raise errors.MisuseError(f"deadline_s must be above 0, not {deadline_s}")
        super().__init__(
            session,
            model,
            inner,
            sync_every=sync_every,
            identity={"alpha": alpha, "beta": beta, "gamma": gamma, "seed": seed},
            every=every,
            channel=channel,
            parity_every=0,
        )
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.seed_, self.deadline_s = seed, deadline_s
        self.unpaired = 0
        """Rounds whose partner was lost or came too late."""
        self._blocks = Blocks()
        self._meeting: Meeting | None = None
        self._donated = 0
        self._held = 0
        self._attach(earlier)

    # --- data, without a collective ---------------------------------------------------------------

    @property
    def share(self) -> ledgers.Spans:
        """This island's positions of the running round."""
        return self._blocks.spans(self._ledger.plan, self._rank())

    @property
    def data_epoch(self) -> int:
        """The pass that the running round's share is of."""
        return self._blocks.epoch(self._ledger.plan, self._rank())

    def _rank(self) -> int:
        """This island's place in the view; an island that is being expelled learns it later."""
        ids = self._session.view.ids
        return ids.index(self._session.peer_id) if self._session.peer_id in ids else 0

    def _slot(self) -> int | None:
        return self._rank()

    def _values(self) -> dict[str, Any]:
        return super()._values() | {"blocks": self._blocks.first}

    def _take_position(self, values: Mapping[str, Any]) -> None:
        super()._take_position(values)
        self._blocks = Blocks(first=int(values.get("blocks", 0)))

    # --- rounds -----------------------------------------------------------------------------------

    def _events_of(self, round_: int) -> tuple[Event, ...]:
        return schedule.blocking(round_, period=self.sync_every)

    def _begin_round(self, round_: int) -> None:
        super()._begin_round(round_)
        self._blocks.begin(len(self._session.view.ids))
        self._meeting = self._meet(round_)

    def finish(self) -> None:
        """Gives up the exchange of phi that has begun for the next round."""
        if self._meeting is not None:
            self._meeting.end()

    def _meet(self, round_: int) -> Meeting:
        """Begins to swap phi with the partners of a round, by the present view."""
        view = self._session.view
        meeting = Meeting(
            session=self._session,
            channel=self.channel,
            epoch=view.epoch,
            round=round_,
            lease=self._state.lend(),
        )
        for peer in self._partners(view.ids, view.epoch, round_):
            try:
                meeting.send_phi(peer, self._state.now[0].theta)
            except errors.MisuseError:
                # The view has changed since it was looked at: an unpaired round, unless the
                # meeting is arranged anew.
                logger.debug("round %d: a partner has just left", round_)
        return meeting

    def _partners(self, ids: tuple[PeerId, ...], epoch: int, round_: int) -> list[PeerId]:
        if self._session.peer_id not in ids:
            return []
        rank = ids.index(self._session.peer_id)
        found = gossip.partners(rank, len(ids), seed=self.seed_, epoch=epoch, round_=round_)
        return [ids[other] for other in found]

    def _stage(self, index: int, fragment: int, weight: float, trained: int) -> Staged:
        """[theta - phi, 1 or 0: whether it counts]."""
        import torch

        part = self._layout.fragments[0]
        delta = torch.zeros(part.numel + 1, device="cpu")
        if weight > 0:
            part.subtract_from(self._state.now[0].theta, delta[:-1])()
            delta[:-1].neg_()
            delta[-1] = 1.0
        return Staged(
            index=index,
            fragment=fragment,
            weight=weight,
            trained=trained,
            delta=delta,
            ready=lambda: None,
        )

    def _exchange(self, staged: Staged) -> Exchanged:
        import torch

        refused = not bool(torch.isfinite(staged.delta).all())
        if refused:
            logger.error("round %d: this island's parameters are not finite; left out", self.round)
            staged.delta.zero_()
        end = time.monotonic() + self.deadline_s
        met: list[Met] = []
        meeting = self._meeting
        assert meeting is not None
        expected = len(meeting.partners)
        while True:
            meeting.send_delta(staged.delta)
            met, changed = meeting.results(end)
            if met or not changed or time.monotonic() >= end:
                break
            meeting = self._meet(self.running)
            expected = len(meeting.partners)
        if expected and not met:
            self.unpaired += 1
            self._session.count("unpaired")
        return Exchanged(
            epoch=self._session.view.epoch,
            members=self._session.view.ids,
            notes=[],
            weights=[],
            slot=self._stepped(staged, met),
            refused=refused,
            extra={"paired": bool(met)},
        )

    def _stepped(self, staged: Staged, met: list[Met]) -> Slot:
        """phi and delta after the meeting. Every member's are its own: torch computes them."""
        now, then = self._state.now[0], self._state.next(0)
        deltas = [one.delta for one in met if one.delta is not None]
        if float(staged.delta[-1]) == 1.0 or not deltas:
            deltas.insert(0, staged.delta[:-1])
        phis = [now.theta, *(one.phi for one in met)]
        phi, delta = gossip.noloco_step(
            now.theta,
            now.momentum,
            sum(deltas[1:], deltas[0]) / len(deltas),
            sum(phis[1:], phis[0]) / len(phis),
            alpha=self.alpha,
            beta=self.beta,
            gamma=self.gamma,
        )
        then.theta.copy_(phi)
        then.momentum.copy_(delta)
        return then

    def _absorb(self, *, behind: bool = False) -> None:
        under = self._flights.popleft()
        began = time.monotonic()
        self._session.report(phase="exchanging")
        exchanged = under.flight.result()
        assert exchanged.slot is not None
        self._state.advance(0, exchanged.slot)
        self._index += 1
        self.round += 1
        self._blocks.end()
        self._publish_if_idle()
        self._into_model(0, under.staged, exchanged)
        self._refuse(exchanged.refused)
        self._session.round_over(
            round_=self.round,
            epoch=exchanged.epoch,
            data_epoch=self.data_epoch,
            used=(),
            loss=float(under.loss),
            digest="",
            contributed=bool(exchanged.extra["paired"]),
            sync_s=time.monotonic() - began,
        )
        self.just_synced = True

    def _publish_if_idle(self) -> None:
        """A joiner must come to the end of what it has begun to fetch: no op holds the members'
        state for it, as a collective would."""
        donated = self._session.engine.stats().donated_bytes
        fetching, self._donated = donated != self._donated, donated
        if fetching and self._held < _MOST_HELD:
            self._held += 1
            return
        self._held = 0
        self.publish()

    def _into_model(self, fragment: int, staged: Staged, exchanged: Exchanged) -> None:
        self._layout.fragments[fragment].scatter(self._state.now[fragment].theta)

    def bytes_per_round(self, members: int) -> float:
        """Payload that this island sends in a round: phi and theta - phi to its partner."""
        partners = 0 if members == 1 else 1
        return traffic.noloco_bytes(self._layout.numel, partners=partners)

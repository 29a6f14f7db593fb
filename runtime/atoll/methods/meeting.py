"""One meeting of NoLoCo's: what an island exchanges with its partners of a round.

Each partner's exchange is best effort and by itself: it comes to something in time, or it does not.
Thread: the user's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from atoll import errors

if TYPE_CHECKING:
    import torch

    from atoll.collectives.handle import Handle
    from atoll.membership.messages import PeerId
    from atoll.session import Session

_PARTS = 4
_LONG_S = 24 * 3600.0
"""phi goes during the inner phase, however long that is; `Meeting.end` ends it."""


def tag_of(epoch: int, round_: int, part: int) -> int:
    """Meetings of other rounds, or by another view's pairing, have other tags."""
    return (epoch << 36 | (round_ & ((1 << 34) - 1)) * _PARTS | part) & ((1 << 64) - 1)


@dataclass(slots=True, kw_only=True, eq=False)
class _Partner:
    peer: PeerId
    phi: Handle[torch.Tensor]
    delta: Handle[torch.Tensor] | None = None


@dataclass(slots=True, kw_only=True)
class Met:
    """What one partner brought: phi [numel]; delta [numel], or None if it has none to give."""

    phi: torch.Tensor
    delta: torch.Tensor | None


@dataclass(slots=True, kw_only=True, eq=False)
class Meeting:
    """Of one round, paired by the view `epoch`. lease: keeps what is being sent as it is."""

    session: Session
    channel: int
    epoch: int
    round: int
    lease: object
    partners: list[_Partner] = field(default_factory=list)

    def send_phi(self, peer: PeerId, phi: torch.Tensor) -> None:
        """Begins to swap phi with a partner; returns at once."""
        handle = self.session.exchange(
            phi,
            partner=peer,
            tag=tag_of(self.epoch, self.round, 0),
            channel=self.channel,
            timeout_s=_LONG_S,
        )
        self.partners.append(_Partner(peer=peer, phi=handle))

    def send_delta(self, delta: torch.Tensor) -> None:
        """Begins to swap [Delta, 1 or 0: whether it counts] with all partners."""
        for one in self.partners:
            one.delta = self.session.exchange(
                delta,
                partner=one.peer,
                tag=tag_of(self.epoch, self.round, 1),
                channel=self.channel,
                timeout_s=_LONG_S,
            )

    def results(self, end: float) -> tuple[list[Met], bool]:
        """(what came of it by `end`, time.monotonic(); whether the view changed meanwhile)."""
        met = []
        for one in self.partners:
            assert one.delta is not None
            try:
                for handle in (one.phi, one.delta):
                    handle.wait(max(0.001, end - time.monotonic()))
            except (errors.PeerLost, errors.DeadlineExceeded, errors.OpAborted):
                continue
            found = _sound(one.phi.target, one.delta.target)
            if found is not None:
                met.append(found)
        self.end()
        return met, self.session.view.epoch != self.epoch

    def end(self) -> None:
        """What is still under way is given up."""
        for one in self.partners:
            for handle in (one.phi, one.delta):
                if handle is not None and not handle.done():
                    handle.abort()


def _sound(phi: torch.Tensor, delta: torch.Tensor) -> Met | None:
    """Nothing that is not finite gets in, whatever a partner sent."""
    import torch

    if not bool(torch.isfinite(phi).all()):
        return None
    counts = float(delta[-1]) == 1.0 and bool(torch.isfinite(delta).all())
    return Met(phi=phi, delta=delta[:-1] if counts else None)

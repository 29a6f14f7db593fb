"""The session's ops between two members: apart from the channels' order, and best effort.

Two members' ops meet by channel and tag. They live in one view: when it changes, they fail.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from atoll import errors
from atoll.collectives import options
from atoll.collectives.tensors import as_moved, check_target, check_tensor

if TYPE_CHECKING:
    import torch

    from atoll.collectives.handle import Handle
    from atoll.collectives.in_flight import Collectives
    from atoll.membership.messages import PeerId, View

PAIR_TIMEOUT_S = 60.0


class PairCalls(ABC):
    """send, recv and exchange.

    Partners are ranks of the present view, or peers' ids. tag: any number that tells ops between
    the same two members apart; free again when the op is over on both. Waiting raises PeerLost when
    the partner is gone (or the view changed), DeadlineExceeded when it is late, MismatchError when
    sizes or dtypes differ. After a failure it is not known whether the
    partner's side succeeded.
    """

    @property
    @abstractmethod
    def view(self) -> View: ...
    @property
    @abstractmethod
    def peer_id(self) -> PeerId: ...
    @abstractmethod
    def _ops(self) -> Collectives:
        """The collectives, once this session is in the view."""

    @abstractmethod
    def _explain(self, fault: errors.AtollError) -> errors.AtollError: ...

    def exchange(
        self,
        source: torch.Tensor,
        target: torch.Tensor | None = None,
        *,
        partner: int | PeerId,
        tag: int = 0,
        channel: int = 0,
        priority: int = 0,
        timeout_s: float = PAIR_TIMEOUT_S,
    ) -> Handle[torch.Tensor]:
        """Starts swapping `source` with one member that names the same tag.

        source: any shape and dtype, the same size on both. target: receives the partner's; None: a
        new tensor; `target=source`: in place.
        """
        check_tensor("source", source)
        out = source.new_empty(source.shape) if target is None else target
        check_target(out, source, source.numel(), f"source has {source.numel()} elements")
        common = {**self._common(channel, priority), "timeout_ns": _time(timeout_s)}
        tag = options.check_tag(tag)
        ops = self._ops()
        peer = self._peer("partner", partner)
        dtype, width = as_moved(source)
        return ops.start(
            "exchange",
            f"exchange with {peer.hex()[:8]}",
            lambda: ops.engine.exchange(
                channel,
                source.data_ptr(),
                out.data_ptr(),
                source.numel() * width,
                peer,
                tag,
                dtype=dtype,
                **common,
            ),
            target=out,
            buffers=(source, out),
        )

    def send(
        self,
        source: torch.Tensor,
        dst: int | PeerId,
        *,
        tag: int = 0,
        channel: int = 0,
        priority: int = 0,
        timeout_s: float = PAIR_TIMEOUT_S,
    ) -> Handle[torch.Tensor]:
        """Starts sending `source` to `dst`, which receives it with `recv` and the same tag.

        source: any shape and dtype. The op is over when the receiver has it all.
        """
        check_tensor("source", source)
        common = {**self._common(channel, priority), "timeout_ns": _time(timeout_s)}
        tag = options.check_tag(tag)
        ops = self._ops()
        peer = self._peer("dst", dst)
        dtype, width = as_moved(source)
        return ops.start(
            "send",
            f"send to {peer.hex()[:8]}",
            lambda: ops.engine.send(
                channel,
                source.data_ptr(),
                source.numel() * width,
                peer,
                tag,
                dtype=dtype,
                **common,
            ),
            target=source,
            buffers=(source,),
        )

    def recv(
        self,
        target: torch.Tensor,
        src: int | PeerId,
        *,
        tag: int = 0,
        channel: int = 0,
        priority: int = 0,
        timeout_s: float = PAIR_TIMEOUT_S,
    ) -> Handle[torch.Tensor]:
        """Starts receiving what `src` sends with the same tag, of target's size and dtype.

        After a failure the target may hold part of it.
        """
        check_tensor("target", target)
        common = {**self._common(channel, priority), "timeout_ns": _time(timeout_s)}
        tag = options.check_tag(tag)
        ops = self._ops()
        peer = self._peer("src", src)
        dtype, width = as_moved(target)
        return ops.start(
            "recv",
            f"receipt from {peer.hex()[:8]}",
            lambda: ops.engine.recv(
                channel,
                target.data_ptr(),
                target.numel() * width,
                peer,
                tag,
                dtype=dtype,
                **common,
            ),
            target=target,
            buffers=(target,),
        )

    def _common(self, channel: int, priority: int) -> dict[str, Any]:
        options.check_channel(channel)
        # quiet: the handle watches those ops that somebody awaits.
        return {"priority": options.check_priority(priority), "quiet": True}

    def _peer(self, name: str, partner: int | PeerId) -> PeerId:
        ids = self.view.ids
        if not isinstance(partner, bytes):
            if not isinstance(partner, int) or not 0 <= partner < len(ids):
                raise errors.MisuseError(f"{name} {partner!r} is no rank of a view of {len(ids)}")
            partner = ids[partner]
        if partner == self.peer_id:
            raise errors.MisuseError(f"{name} is this island itself")
        return partner


def _time(timeout_s: float) -> int:
    return options.nanos("timeout_s", timeout_s)

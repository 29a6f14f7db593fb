"""Ops of the core between two members of a fixed group: one sends, the other receives.

The core tells those of one pair and direction apart by a number. Thread: any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.collectives.tensors import as_moved

if TYPE_CHECKING:
    import torch

    from atoll.collectives.handle import Handle
    from atoll.distributed.fixed import FixedGroup


class Moves:
    """On one of the core's channels. Tensors are contiguous, on the host, and the op's until it is
    over."""

    def __init__(self, group: FixedGroup, channel: int) -> None:
        self._group = group
        self._channel = channel

    def send(self, tensor: torch.Tensor, rank: int, number: int, timeout_ns: int) -> Handle[None]:
        """Over when the receiver has it all."""
        group = self._group
        dtype, width = as_moved(tensor)
        return group.ops.start(
            "send",
            f"send to {group.name(rank)}",
            lambda: group.engine.send(
                self._channel,
                tensor.data_ptr(),
                tensor.numel() * width,
                group.peers[rank],
                number,
                dtype=dtype,
                timeout_ns=timeout_ns,
                quiet=True,
            ),
            target=None,
            buffers=(tensor,),
        )

    def receive(
        self, tensor: torch.Tensor, rank: int, number: int, timeout_ns: int
    ) -> Handle[None]:
        """tensor: of the sender's size."""
        group = self._group
        dtype, width = as_moved(tensor)
        return group.ops.start(
            "receipt",
            f"receipt from {group.name(rank)}",
            lambda: group.engine.recv(
                self._channel,
                tensor.data_ptr(),
                tensor.numel() * width,
                group.peers[rank],
                number,
                dtype=dtype,
                timeout_ns=timeout_ns,
                quiet=True,
            ),
            target=None,
            buffers=(tensor,),
        )

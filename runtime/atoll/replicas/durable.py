"""Replicas' state as a checkpoint has it: parameters, buffers, the optimizer's state, the step.

Three groups of tensors (atoll.checkpoint writes a file or more of each): `parameters` and `buffers`
by the model's names, `optimizer` as INDEX.KEY, INDEX that of the optimizer's own state dict.
Thread: the user's; what is lent may be dropped on any.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch

from atoll.checkpoint.pieces import pieces_of
from atoll.checkpoint.write import Snapshot
from atoll.errors import MismatchError
from atoll.replicas import state as states
from atoll.replicas.position import begun

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler

    from atoll.checkpoint.read import Targets
    from atoll.replicas.parallel import FaultTolerantDDP

_GROUPS = {"parameter": "parameters", "buffer": "buffers", "optimizer": "optimizer"}
"""A checkpoint's names of what `states.described` names."""

_ANEW = {"buckets", "max_norm"}
"""Of the identity: what a restarted job may have otherwise, since it changes no state that is."""


class _Lease:
    """Alive while somebody may read the copies."""

    __slots__ = ("__weakref__",)


class DurableReplicas:
    """What `atoll.checkpoint.keeper.Saved` asks for, of a model and its optimizer."""

    counts = "step"

    def __init__(
        self,
        ddp: FaultTolerantDDP,
        inner: torch.optim.Optimizer,
        scheduler: LRScheduler | None,
        identity: dict[str, Any],
    ) -> None:
        """identity: what all replicas must have in common, JSON."""
        self._ddp, self._inner, self._scheduler = ddp, inner, scheduler
        self._identity = identity
        self._copies: dict[str, torch.Tensor] = {}
        self._lease = weakref.ref(_Lease())
        self._receiving: dict[str, torch.Tensor] = {}
        self._pieces = pieces_of(ddp.module.named_parameters())

    @property
    def round(self) -> int:
        """Steps that are complete."""
        return self._ddp.step

    @property
    def line(self) -> str:
        return self._ddp.exchange.line

    @line.setter
    def line(self, line: str) -> None:
        self._ddp.exchange.line = line

    def snapshot(self) -> Snapshot:
        """The state after the last step, copied: the next step writes to the parameters."""
        found = states.described(self._ddp.module, self._inner, self._scheduler)
        kept = states.persistent_tensors(self._ddp.module)
        tensors = {
            name: tensor
            for name, tensor in found.tensors.items()
            if name in kept or name.startswith("optimizer.")
        }
        lease = self._copy(tensors)
        return Snapshot(
            round=self.round,
            revision=self._ddp.exchange.revision,
            values={
                **found.values,
                "tensors": [each for each in found.values["tensors"] if each[0] in tensors],
                "step": self.round,
                "identity": self._identity,
            },
            groups=_grouped(self._copies),
            lease=lease,
            pieces=self._pieces,
        )

    def restoring(self, values: dict[str, Any]) -> Targets:
        identity = {k: v for k, v in self._identity.items() if k not in _ANEW}
        states.check_identity(values, identity)
        mine = states.persistent_tensors(self._ddp.module)
        try:
            int(values["step"])
            described = {
                str(name): (states.dtype_of(kind), [int(size) for size in shape])
                for name, kind, shape in values["tensors"]
            }
        except (KeyError, TypeError, ValueError) as error:
            raise MismatchError(f"the checkpoint is not one of replicas: {error!r}") from None
        for name, tensor in mine.items():
            if described.get(name) != (tensor.dtype, list(tensor.shape)):
                raise MismatchError(
                    f"{name} is {tensor.dtype} {list(tensor.shape)} here, and not in the "
                    "checkpoint; start with the same model, or name another checkpoint_url"
                )
        self._receiving = {
            name: torch.empty(shape, dtype=dtype, device="cpu")
            for name, (dtype, shape) in described.items()
        }
        return _grouped(self._receiving)

    def restored(self, values: dict[str, Any]) -> None:
        """The targets are filled: this is the state now. `seed` comes next."""
        found, self._receiving = self._receiving, {}
        try:
            mine = states.persistent_tensors(self._ddp.module)
            states.load(found, values, mine, self._inner, self._scheduler)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise MismatchError(
                f"the checkpoint's optimizer is another than this one: {error!r}"
            ) from None
        exchange = self._ddp.exchange
        here = (exchange.session.peer_id,)
        position = begun(exchange.position.buckets, here, step=int(values["step"]))
        exchange.stand_at(exchange.revision, position)

    # --- within -----------------------------------------------------------------------------------

    def _copy(self, tensors: dict[str, torch.Tensor]) -> object:
        """Into `_copies`, which are used again when nobody reads them any more: memory that was
        never touched costs more than the copy."""
        like = {name: (t.shape, t.dtype) for name, t in self._copies.items()}
        wanted = {name: (t.shape, t.dtype) for name, t in tensors.items()}
        if self._lease() is not None or like != wanted:
            self._copies = {
                name: torch.empty(shape, dtype=dtype, device="cpu")
                for name, (shape, dtype) in wanted.items()
            }
        for name, tensor in tensors.items():
            self._copies[name].copy_(tensor)
        lease = _Lease()
        self._lease = weakref.ref(lease)
        return lease


def _grouped(tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    groups: dict[str, dict[str, torch.Tensor]] = {group: {} for group in _GROUPS.values()}
    for name, tensor in tensors.items():
        group, _, rest = name.partition(".")
        groups[_GROUPS[group]][rest] = tensor
    return {group: named for group, named in groups.items() if named}

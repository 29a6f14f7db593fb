"""The collectives of a session that move bytes and do no sums: all-gather, all-to-all, broadcast.

Thread: any; see `calls`, which has the options that all of them share. Sizes and ranks are made for
one view, so these ops are bound to it, a broadcast from a peer excepted.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from atoll import errors
from atoll.collectives import options
from atoll.collectives.pairs import PairCalls
from atoll.collectives.tensors import as_moved, check_target, check_tensor

if TYPE_CHECKING:
    import torch

    from atoll.collectives.handle import Handle
    from atoll.membership.messages import PeerId


def target_of(
    source: torch.Tensor, target: torch.Tensor | None, count: int, why: str
) -> torch.Tensor:
    """`target`, or a new tensor like `source`. Raises TensorError, with `why`, unless it fits."""
    if target is None:
        return source.new_empty(source.shape)
    check_target(target, source, count, why)
    return target


class MoveCalls(PairCalls, ABC):
    """All-gathers, all-to-all and broadcast, of any dtype."""

    @abstractmethod
    def members_of(self, epoch: int) -> tuple[PeerId, ...]: ...

    def all_gather(
        self,
        source: torch.Tensor,
        target: torch.Tensor | None = None,
        *,
        note: int = 0,
        channel: int = 0,
        priority: int = 0,
        timeout_s: float | None = None,
        epoch: int | None = None,
    ) -> Handle[torch.Tensor]:
        """Everybody's `source`, of the same size, in everybody's target, one after the other.

        source: any shape and dtype. target: N times as many elements; None: a new [N, *shape].
        note: as in `all_reduce`.
        epoch: of the view that sizes and ranks were made for (`session.view.epoch`, read before);
            None: the view of now. If the members are others when the op's turn comes, it fails on
            all of them with ViewChanged, inputs intact.
        """
        check_tensor("source", source)
        common = {**self._common(channel, priority), "note": options.check_note(note)}
        ops = self._ops()
        timeout_ns = ops.timeout_ns(timeout_s)
        bound, ids, _ = self._bound(epoch)
        total = len(ids) * source.numel()
        if target is None:
            out = source.new_empty((len(ids), *source.shape))
        else:
            why = f"source has {source.numel()} elements on each of {len(ids)} members"
            out = target_of(source, target, total, why)
        dtype, width = as_moved(source)
        return ops.start(
            "all_gather",
            f"all-gather of {source.numel()} elements each",
            lambda: ops.engine.all_gather(
                channel,
                source.data_ptr(),
                out.data_ptr(),
                source.numel() * width,
                total * width,
                dtype=dtype,
                epoch=bound,
                timeout_ns=timeout_ns,
                **common,
            ),
            target=out,
            buffers=(source, out),
            bound_to=bound,
        )

    def all_gather_list(
        self,
        source: torch.Tensor,
        *,
        sizes: Sequence[int] | None = None,
        channel: int = 0,
        priority: int = 0,
        timeout_s: float | None = None,
        epoch: int | None = None,
    ) -> Handle[list[torch.Tensor]]:
        """Everybody's `source`, with any number of rows each, as a list by rank.

        source: [rows, ...], any dtype; all but the rows must be equal on all members.
        sizes: the rows of each member, by rank, equal on all. None: they are exchanged first, for
            which this call waits (a round trip and whoever is late), and may raise what
            `Handle.wait` does.
        epoch: see `all_gather`.
        """
        import torch

        check_tensor("source", source)
        if source.dim() == 0:
            raise errors.TensorError("source has no dimension; pass source.reshape(1)")
        common = self._common(channel, priority)
        ops = self._ops()
        timeout_ns = ops.timeout_ns(timeout_s)
        bound, ids, rank = self._bound(epoch)
        if sizes is None:
            sizes = self._exchange_sizes(source, channel, timeout_s, bound)
        if len(sizes) != len(ids) or sizes[rank] != source.shape[0]:
            raise errors.TensorError(
                f"sizes are {list(sizes)}; they must name the rows of {len(ids)} members, and "
                f"source has {source.shape[0]} here"
            )
        out = source.new_empty((sum(sizes), *source.shape[1:]))
        dtype, width = as_moved(source)
        row = width * out[:1].numel() if len(out) else 0
        return ops.start(
            "all_gather",
            f"all-gather of {len(out)} rows",
            lambda: ops.engine.all_gather(
                channel,
                source.data_ptr(),
                out.data_ptr(),
                source.numel() * width,
                out.numel() * width,
                counts=[rows * row for rows in sizes],
                dtype=dtype,
                epoch=bound,
                timeout_ns=timeout_ns,
                **common,
            ),
            target=list(torch.split(out, list(sizes))),
            buffers=(source, out),
            bound_to=bound,
        )

    def all_to_all(
        self,
        source: torch.Tensor,
        target: torch.Tensor | None = None,
        *,
        channel: int = 0,
        priority: int = 0,
        timeout_s: float | None = None,
        epoch: int | None = None,
    ) -> Handle[torch.Tensor]:
        """Block j of `source` to member j, whose block r comes from member r.

        source: [N * rows, ...], any dtype, the same size on all: N blocks of `rows`. target: as
        many elements; None: a new one of the same shape. epoch: see `all_gather`.
        """
        check_tensor("source", source)
        why = f"source has {source.numel()} elements"
        out = target_of(source, target, source.numel(), why)
        common = self._common(channel, priority)
        ops = self._ops()
        timeout_ns = ops.timeout_ns(timeout_s)
        bound, ids, _ = self._bound(epoch)
        if source.dim() == 0 or source.shape[0] % len(ids) != 0:
            raise errors.TensorError(
                f"source's shape is {list(source.shape)}; its first dimension must be a multiple "
                f"of the {len(ids)} members"
            )
        dtype, width = as_moved(source)
        total = source.numel() * width
        return ops.start(
            "all_to_all",
            f"all-to-all of {source.numel()} elements",
            lambda: ops.engine.all_to_all(
                channel,
                source.data_ptr(),
                out.data_ptr(),
                total // len(ids),
                total,
                dtype=dtype,
                epoch=bound,
                timeout_ns=timeout_ns,
                **common,
            ),
            target=out,
            buffers=(source, out),
            bound_to=bound,
        )

    def broadcast(
        self,
        tensor: torch.Tensor,
        target: torch.Tensor | None = None,
        *,
        root: int | PeerId,
        channel: int = 0,
        priority: int = 0,
        timeout_s: float | None = None,
        epoch: int | None = None,
    ) -> Handle[torch.Tensor]:
        """The root's `tensor` in every member's target.

        tensor: any dtype, the same size on all. target: None: a new tensor; `target=tensor`: in
            place, as torch.distributed does.
        root: a rank, which means a member of one view only (epoch: see `all_gather`), or a peer's
            id, for an op that runs again when somebody else is lost. PeerLost when the root is.
        """
        check_tensor("tensor", tensor)
        out = target_of(tensor, target, tensor.numel(), f"tensor has {tensor.numel()} elements")
        common = self._common(channel, priority)
        ops = self._ops()
        timeout_ns = ops.timeout_ns(timeout_s)
        bound = 0
        if not isinstance(root, bytes):
            bound, ids, _ = self._bound(epoch)
            if not isinstance(root, int) or not 0 <= root < len(ids):
                raise errors.MisuseError(f"root {root} is no rank of a view of {len(ids)}")
            root = ids[root]
        peer = root
        dtype, width = as_moved(tensor)
        return ops.start(
            "broadcast",
            f"broadcast of {tensor.numel()} elements",
            lambda: ops.engine.broadcast(
                channel,
                tensor.data_ptr(),
                out.data_ptr(),
                tensor.numel() * width,
                peer,
                dtype=dtype,
                epoch=bound,
                timeout_ns=timeout_ns,
                **common,
            ),
            target=out,
            buffers=(tensor, out),
            bound_to=bound,
        )

    # --- within -----------------------------------------------------------------------------------

    def _bound(self, epoch: int | None) -> tuple[int, tuple[PeerId, ...], int]:
        """A view's epoch and members, and this member's rank in it."""
        if epoch is None:
            view = self.view
            epoch, ids = view.epoch, view.ids
        else:
            ids = self.members_of(epoch)
        if self.peer_id not in ids:
            raise self._explain(
                errors.SessionClosed(f"this island is no member of view {epoch} of the job")
            )
        return epoch, ids, ids.index(self.peer_id)

    def _exchange_sizes(
        self, source: torch.Tensor, channel: int, timeout_s: float | None, bound: int
    ) -> list[int]:
        """Everybody's rows. All members see the same, so all refuse what does not fit."""
        import torch

        rest = f"{list(source.shape[1:])} {source.dtype}"
        mine = torch.tensor([source.shape[0], zlib.crc32(rest.encode())], device="cpu")
        gathered = self.all_gather(mine, channel=channel, timeout_s=timeout_s, epoch=bound)
        rows, kinds = gathered.result().unbind(1)
        if len(set(kinds.tolist())) > 1:
            raise errors.MismatchError(
                f"all-gather: the members' rows differ in shape or dtype; here they are {rest}"
            )
        return [int(count) for count in rows]

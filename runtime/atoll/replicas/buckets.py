"""A model's gradients in buckets: flat fp32 vectors on the host, in the order in which they come.

Gradients of 16-bit parameters are widened on their way in, which is exact, added up in fp32, and
rounded once, to nearest, on their way out.

Thread: whichever runs the backward pass, one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from atoll.errors import MisuseError, TensorError
from atoll.methods.layout import local_of

if TYPE_CHECKING:
    import torch

FIRST_BYTES = 1 << 20
"""The first bucket is small, so that its exchange begins early."""


KINDS = ("float32", "bfloat16", "float16")
"""Of parameters. A wider one's gradient would lose digits in fp32."""


def planned(sizes: Sequence[int], *, first: int, others: int) -> list[list[int]]:
    """Indices of parameters by bucket, last parameter first: backward gives gradients about in that
    order. sizes: of the parameters, in bytes; first, others: of a bucket, unless one parameter
    alone is larger."""
    parts: list[list[int]] = []
    room = 0
    for index in range(len(sizes) - 1, -1, -1):
        if not parts or sizes[index] > room:
            room = others if parts else first
            parts.append([])
        parts[-1].append(index)
        room -= sizes[index]
    return parts


class Bucket:
    """The gradients of some parameters. Of a DTensor this peer's part."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.parameters = tuple(parameters)
        self.numel = sum(local_of(parameter).numel() for parameter in parameters)
        self._waiting: set[int] = set()
        self._narrow = [p for p in parameters if p.dtype.itemsize < 4]

    def arm(self) -> None:
        """A backward pass begins."""
        self._waiting = set(range(len(self.parameters)))

    def came(self, index: int) -> bool:
        """The gradient of parameter `index` is there; whether all are now. Raises MisuseError for
        one that comes a second time."""
        if index not in self._waiting:
            raise MisuseError(
                "backward ran twice before optimizer.step(); put all but the last one into "
                "`with ddp.no_sync():`"
            )
        self._waiting.discard(index)
        return not self._waiting

    @property
    def is_empty(self) -> bool:
        """No parameter has a gradient."""
        return all(parameter.grad is None for parameter in self.parameters)

    def gather(self, views: list[torch.Tensor]) -> None:
        """Copies the gradients into these `views` of a flat vector; 0 for one that is not there."""
        import torch

        grads = [parameter.grad for parameter in self.parameters]
        with torch.no_grad():
            torch._foreach_copy_(
                views,
                [
                    torch.zeros_like(view) if grad is None else local_of(grad)
                    for view, grad in zip(views, grads, strict=True)
                ],
            )

    def scatter(self, views: list[torch.Tensor]) -> None:
        """The gradients are these from here on."""
        import torch

        with torch.no_grad():
            for parameter in self.parameters:
                if parameter.grad is None:
                    parameter.grad = torch.empty_like(parameter)
            grads = [local_of(p.grad) for p in self.parameters if p.grad is not None]
            torch._foreach_copy_(grads, views)

    def is_rounded_well(self) -> bool:
        """Whether no total overflowed in a parameter's narrower format."""
        import torch

        grads = [local_of(p.grad) for p in self._narrow if p.grad is not None]
        return not grads or bool(torch.stack([g.isfinite().all() for g in grads]).all())

    def clear(self) -> None:
        """The gradients are gone."""
        for parameter in self.parameters:
            parameter.grad = None

    def views(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """Of [numel], in the parameters' shapes."""
        views, begin = [], 0
        for parameter in self.parameters:
            local = local_of(parameter)
            views.append(flat[begin : begin + local.numel()].view(local.shape))
            begin += local.numel()
        return views


def buckets_of(model: torch.nn.Module, nbytes: int | None) -> list[Bucket]:
    """The trainable parameters in buckets of about `nbytes`; None: in one. Raises TensorError for
    one of a dtype that is not in KINDS, MisuseError when there is none."""
    trained: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        kind = str(parameter.dtype).removeprefix("torch.")
        if kind not in KINDS:
            raise TensorError(
                f"parameter {name} is {kind}; gradients are added up in float32, so it must be "
                f"one of {', '.join(KINDS)}"
            )
        trained.append(parameter)
    if not trained:
        raise MisuseError("the model has no trainable parameter")
    if nbytes is None:
        return [Bucket(trained[::-1])]
    sizes = [4 * local_of(parameter).numel() for parameter in trained]
    parts = planned(sizes, first=min(FIRST_BYTES, nbytes), others=nbytes)
    return [Bucket([trained[index] for index in part]) for part in parts]

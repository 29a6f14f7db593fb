"""What a collective takes for a tensor, and how the engine sees it: an address and a number of
elements. Pure checks; every refusal is one line and comes before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll import errors

if TYPE_CHECKING:
    import torch

DTYPES = {
    "float32": 4,
    "float64": 8,
    "float16": 2,
    "bfloat16": 2,
    "int8": 1,
    "uint8": 1,
    "int32": 4,
    "int64": 8,
}
"""What can be reduced, by torch's names: bytes of an element. Anything can be moved."""


def dtype_name(tensor: torch.Tensor) -> str:
    """float32, say."""
    return str(tensor.dtype).removeprefix("torch.")


def check_tensor(name: str, tensor: torch.Tensor) -> None:
    """Raises TensorError unless it is a tensor, dense, contiguous and on the CPU."""
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise errors.TensorError(f"{name} is a {type(tensor).__name__}, not a torch tensor")
    if tensor.layout != torch.strided or not tensor.is_contiguous():
        raise errors.TensorError(f"{name} is not contiguous; pass {name}.contiguous()")
    if tensor.device.type != "cpu":
        raise errors.TensorError(f"{name} is on {tensor.device}; pass {name}.cpu()")
    if tensor.is_conj() or tensor.is_neg():  # the memory holds other numbers than the tensor
        raise errors.TensorError(f"{name} is a lazy view; pass {name}.resolve_conj().resolve_neg()")


def check_numbers(name: str, tensor: torch.Tensor) -> None:
    """Raises TensorError unless it is a tensor whose numbers the engine can reduce."""
    check_tensor(name, tensor)
    kind = dtype_name(tensor)
    if kind not in DTYPES:
        raise errors.TensorError(
            f"{name} is {kind}; reductions take {', '.join(DTYPES)}; convert it with .to()"
        )


def check_target(target: torch.Tensor, like: torch.Tensor, count: int, why: str) -> None:
    """Raises TensorError unless it can receive `count` elements of `like`'s dtype."""
    check_tensor("target", target)
    if target.dtype != like.dtype:
        raise errors.TensorError(
            f"source is {dtype_name(like)} and target {dtype_name(target)}; they must be equal"
        )
    if target.numel() != count:
        raise errors.TensorError(f"{why}, target {target.numel()}; it must have {count}")


def as_moved(tensor: torch.Tensor) -> tuple[str, int]:
    """The dtype under which it travels unchanged, and how many of its elements one of the
    tensor's is: what the engine does not know travels as bytes."""
    kind = dtype_name(tensor)
    return (kind, 1) if kind in DTYPES else ("uint8", tensor.element_size())

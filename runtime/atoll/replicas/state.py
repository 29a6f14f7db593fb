"""What replicas share: parameters, buffers, the optimizer's state. As named bytes and JSON.

Functions of a model and its optimizer. What comes from others is checked before it is used.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from atoll.errors import MismatchError, MisuseError
from atoll.methods.layout import local_of
from atoll.replicas import schedule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch.optim.lr_scheduler import LRScheduler

    from atoll.state.manifest import Manifest

_MOST_STATE = 8
"""Optimizer state, in times of the parameters' bytes: more is refused (AdamW with amsgrad: 3)."""

_ROOM_BYTES = 1 << 20
"""And so much more, for scalars."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """tensors: by name, in order. values: JSON."""

    tensors: dict[str, torch.Tensor]
    values: dict[str, Any]


def described(
    model: torch.nn.Module, inner: torch.optim.Optimizer, scheduler: LRScheduler | None = None
) -> Described:
    """The state as it is. Raises MisuseError for an optimizer with a state of another kind."""
    tensors = model_tensors(model)
    held = inner.state_dict()
    scalars: list[list[Any]] = []
    for index, entries in held["state"].items():
        for key, value in entries.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer.{index}.{key}"] = local_of(value)
            else:
                scalars.append([index, key, value])
    values = {
        "tensors": [[name, _kind(t), list(t.shape)] for name, t in tensors.items()],
        "scalars": scalars,
        "groups": held["param_groups"],
        "scheduler": schedule.state_of(scheduler),
    }
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise MisuseError(
            f"the optimizer's state is not tensors and JSON ({error}); it cannot be shared"
        ) from None
    return Described(tensors=tensors, values=values)


def model_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name; of a DTensor this peer's part."""
    found = {f"parameter.{n}": local_of(p).detach() for n, p in model.named_parameters()}
    return found | {f"buffer.{n}": local_of(b).detach() for n, b in model.named_buffers()}


def host_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """[nbytes] uint8 on the host; of a contiguous host tensor its own memory."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def persistent_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Those that a checkpoint holds: all but the buffers that torch does not save either."""
    transient = {
        f"buffer.{prefix}.{name}" if prefix else f"buffer.{name}"
        for prefix, module in model.named_modules()
        for name in module._non_persistent_buffers_set
    }
    found = model_tensors(model).items()
    return {name: tensor for name, tensor in found if name not in transient}


def check(manifest: Manifest, model: torch.nn.Module, identity: Mapping[str, Any]) -> None:
    """Raises MismatchError for a manifest of another model or other settings, or of a size that no
    optimizer's state has."""
    check_identity(manifest.values, identity)
    mine = model_tensors(model)
    sizes = {entry.name: entry.nbytes for entry in manifest.tensors}
    for name, tensor in mine.items():
        if sizes.get(name) != tensor.nbytes:
            raise MismatchError(
                f"{name} has {tensor.nbytes} bytes here and {sizes.get(name)} in the job; start "
                "this replica with the same model"
            )
    rest = sum(size for name, size in sizes.items() if name not in mine)
    most = _MOST_STATE * sum(tensor.nbytes for tensor in mine.values()) + _ROOM_BYTES
    if rest > most:
        raise MismatchError(f"the job's optimizer state has {rest} bytes, more than {most}")


def check_identity(values: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raises MismatchError when shared values are of other settings than these."""
    theirs = values.get("identity")
    for key, mine in identity.items():
        if not isinstance(theirs, dict) or theirs.get(key) != mine:
            found = theirs.get(key) if isinstance(theirs, dict) else None
            raise MismatchError(
                f"this replica has {key} = {mine}, the job {found}; start it with the same model "
                "and settings"
            )


def adopt(
    manifest: Manifest,
    received: Sequence[torch.Tensor],
    model: torch.nn.Module,
    inner: torch.optim.Optimizer,
    scheduler: LRScheduler | None = None,
) -> None:
    """Puts what was received into model, optimizer and scheduler. Raises KeyError, IndexError,
    TypeError or ValueError for values that do not fit; the model is then unchanged."""
    entries = zip(manifest.values["tensors"], manifest.tensors, received, strict=True)
    found: dict[str, torch.Tensor] = {}
    for (name, kind, shape), entry, data in entries:
        dtype = dtype_of(kind)
        if name != entry.name:
            raise ValueError(f"{name} is {kind}, beside {entry.name}")
        if math.prod(shape) * dtype.itemsize != entry.nbytes:
            raise ValueError(f"{name} is {kind} {shape} in {entry.nbytes} bytes")
        found[name] = data.view(dtype).reshape(shape)
    load(found, manifest.values, model_tensors(model), inner, scheduler)


def load(
    found: Mapping[str, torch.Tensor],
    values: Mapping[str, Any],
    mine: Mapping[str, torch.Tensor],
    inner: torch.optim.Optimizer,
    scheduler: LRScheduler | None,
) -> None:
    """Puts found tensors and values into the model, whose tensors are `mine`, the optimizer and the
    scheduler. Raises what `adopt` does; the model has not changed then."""
    held: dict[int, dict[str, Any]] = {}
    for name, tensor in found.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            held.setdefault(int(index), {})[key] = tensor.clone()
    for index, key, value in values["scalars"]:
        held.setdefault(int(index), {})[str(key)] = value
    for name, tensor in mine.items():
        if found[name].shape != tensor.shape or found[name].dtype != tensor.dtype:
            raise ValueError(f"{name} is {_kind(found[name])} {list(found[name].shape)}")
    own = inner.state_dict()["param_groups"]
    parameters = [p for group in inner.param_groups for p in group["params"]]
    for number, state in held.items():
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                state[key] = _like(parameters[number], value)
    groups = [
        {key: _as(before.get(key), value) for key, value in group.items()}
        for group, before in zip(values["groups"], own, strict=True)
    ]
    schedule.load(scheduler, values.get("scheduler"))
    inner.load_state_dict({"state": held, "param_groups": groups})
    for name, tensor in mine.items():
        tensor.copy_(found[name])


def dtype_of(kind: object) -> torch.dtype:
    """By its name, "bfloat16" say. Raises ValueError for another name."""
    dtype = getattr(torch, str(kind), None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{kind} is not a dtype")
    return dtype


def _like(parameter: torch.Tensor, local: torch.Tensor) -> torch.Tensor:
    """What was shared of a parameter's state: of a DTensor it is this peer's part again."""
    from torch.distributed.tensor import DTensor

    if not isinstance(parameter, DTensor) or local.shape != parameter.to_local().shape:
        return local
    return DTensor.from_local(
        local,
        parameter.device_mesh,
        parameter.placements,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def _as(before: Any, value: Any) -> Any:
    """A JSON list is a tuple where it was one."""
    return tuple(value) if isinstance(before, tuple) else value


def _kind(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")

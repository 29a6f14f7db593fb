"""A model's parameters in fragments: each one flat fp32 vector on the host.

Thread: the user's, where nothing else is said. A fragment holds references to the parameters, never
copies of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.checkpoint.pieces import pieces_of
from atoll.errors import MisuseError, TensorError
from atoll.methods.lift import Lift

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    Split = Callable[[Sequence[str]], Sequence[Sequence[str]]]
    """Names of parameters by fragment, from all names. Every name is in one fragment."""


class Fragment:
    """Where each parameter of a part of the model lies in the flat vector of `numel` elements.

    Of a parameter that is sharded inside its island (a DTensor) only this peer's part.
    """

    def __init__(self, parameters: Sequence[tuple[str, torch.nn.Parameter]]) -> None:
        """Raises TensorError for parameters on different devices."""
        self.numel = 0
        self._parameters = [parameter for _, parameter in parameters]
        self._parts: list[tuple[str, tuple[int, ...], slice]] = []
        for (name, _), local in zip(parameters, self._locals(), strict=True):
            begin, self.numel = self.numel, self.numel + local.numel()
            self._parts.append((name, tuple(local.shape), slice(begin, self.numel)))
        devices = {local.device for local in self._locals()}
        if len(devices) > 1:
            raise TensorError(f"a fragment's parameters are on {len(devices)} devices; use one")
        self.on_host = all(device.type == "cpu" for device in devices)
        self._lift = None if self.on_host else Lift(self.numel, devices.pop())

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the parameters, in their order in the vector."""
        return [shape for _, shape, _ in self._parts]

    def named(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """Views of `flat` by the parameters' names, in their shapes."""
        return {name: flat[part].view(shape) for name, shape, part in self._parts}

    def gather(self, flat: torch.Tensor) -> None:
        """Copies the parameters into `flat` (numel fp32 elements on the host)."""
        import torch

        with torch.no_grad():
            if self._lift is None:
                torch._foreach_copy_(self._views(flat), self._locals())
            else:
                self._lift.down(self._views, self._locals(), flat)()

    def subtract_from(self, flat: torch.Tensor, out: torch.Tensor) -> Callable[[], None]:
        """out = flat - parameters, both numel fp32 elements on the host, as they are now.

        Returns what must be called, by any thread, before `out` is read; `flat` must stay until
        then. From an accelerator the copy goes through a stream of its own: nothing waits here.
        """
        import torch

        with torch.no_grad():
            if self._lift is None:
                for one, theta, local in zip(
                    self._views(out), self._views(flat), self._locals(), strict=True
                ):
                    torch.sub(theta, local, out=one)
                return _nothing
            copied = self._lift.down(self._views, self._locals(), out)

        def subtract() -> None:
            if copied():
                torch.sub(flat, out, out=out)

        return subtract

    def scatter(self, flat: torch.Tensor) -> None:
        """Copies `flat` into the parameters."""
        self.mix(flat, 0.0)

    def mix(self, flat: torch.Tensor, alpha: float) -> None:
        """parameters = alpha * parameters + (1 - alpha) * flat."""
        import torch

        with torch.no_grad():
            new = self._views(flat if self._lift is None else self._lift.up(flat))
            if alpha == 0:
                torch._foreach_copy_(self._locals(), new)
                return
            torch._foreach_mul_(self._locals(), alpha)
            torch._foreach_add_(self._locals(), new, alpha=1 - alpha)

    def _locals(self) -> list[torch.Tensor]:
        return [local_of(parameter).detach() for parameter in self._parameters]

    def _views(self, flat: torch.Tensor) -> list[torch.Tensor]:
        return [flat[part].view(shape) for _, shape, part in self._parts]


def _nothing() -> None:
    """There is nothing to wait for."""


def local_of(parameter: torch.Tensor) -> torch.Tensor:
    """This peer's part of a parameter that is sharded inside its island; else the parameter."""
    local = getattr(parameter, "to_local", None)
    return parameter if local is None else local()


class Layout:
    """The fragments of a model. `names`: of all its trainable parameters, with their shapes."""

    def __init__(self, model: torch.nn.Module, split: Split | None = None) -> None:
        """split: into fragments; None: all parameters are one.

        Raises TensorError for a parameter that is not fp32, MisuseError when there is none.
        """
        import torch

        trained: dict[str, torch.nn.Parameter] = {}
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            if parameter.dtype != torch.float32:
                kind = str(parameter.dtype).removeprefix("torch.")
                raise TensorError(
                    f"parameter {name} is {kind}; only float32 is supported, call model.float()"
                )
            trained[name] = parameter
        if not sum(parameter.numel() for parameter in trained.values()):
            raise MisuseError("the model has no trainable parameter")
        self.names = [
            f"{name}:{'x'.join(map(str, local_of(parameter).shape))}"
            for name, parameter in trained.items()
        ]
        self.pieces = pieces_of(trained.items())
        """Of parameters that are sharded inside the island: where this peer's part lies."""
        groups = [list(trained)] if split is None else split(list(trained))
        self.fragments = tuple(
            Fragment([(name, trained[name]) for name in names]) for names in groups
        )

    @property
    def numel(self) -> int:
        """Elements of all fragments."""
        return sum(fragment.numel for fragment in self.fragments)

    @property
    def on_host(self) -> bool:
        """Whether no parameter is on an accelerator."""
        return all(fragment.on_host for fragment in self.fragments)

"""A model's parameters as one flat fp32 vector on the host.

Thread: the user's. The layout holds references to the parameters, never copies of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.errors import MisuseError, TensorError

if TYPE_CHECKING:
    import torch


class Layout:
    """Where each trainable parameter lies in the flat vector of `numel` elements."""

    def __init__(self, model: torch.nn.Module) -> None:
        """Raises TensorError for a parameter that is not fp32, MisuseError when there is none."""
        import torch

        self.names: list[str] = []
        self.numel = 0
        self._parts: list[tuple[torch.nn.Parameter, slice]] = []
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            if parameter.dtype != torch.float32:
                kind = str(parameter.dtype).removeprefix("torch.")
                raise TensorError(
                    f"parameter {name} is {kind}; only float32 is supported, call model.float()"
                )
            begin, self.numel = self.numel, self.numel + parameter.numel()
            self.names.append(f"{name}:{'x'.join(map(str, parameter.shape))}")
            self._parts.append((parameter, slice(begin, self.numel)))
        if not self.numel:
            raise MisuseError("the model has no trainable parameter")

    def gather(self, flat: torch.Tensor) -> None:
        """Copies the parameters into `flat` (numel fp32 elements on the host)."""
        import torch

        with torch.no_grad():
            for parameter, part in self._parts:
                flat[part].view(parameter.shape).copy_(parameter)

    def scatter(self, flat: torch.Tensor) -> None:
        """Copies `flat` into the parameters."""
        import torch

        with torch.no_grad():
            for parameter, part in self._parts:
                parameter.copy_(flat[part].view(parameter.shape))

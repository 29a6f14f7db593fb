"""An inner optimizer whose state is not finite would make every later step so, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def clear_if_broken(inner: torch.optim.Optimizer) -> bool:
    """Empties the optimizer's state if any number in it is not finite; returns whether it was."""
    import torch

    for state in inner.state.values():
        for value in state.values():
            if torch.is_tensor(value) and not bool(torch.isfinite(value).all()):
                inner.state.clear()
                return True
    return False

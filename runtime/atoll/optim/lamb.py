"""LAMB: Adam's direction, with a step as long as the layer is large (arXiv 1904.00962)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import torch
from torch.optim.optimizer import Optimizer

from atoll.errors import MisuseError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from torch.optim.optimizer import ParamsT

    Reduce = Callable[[Tensor], Tensor]


class LAMB(Optimizer):
    """r = m^ / (sqrt(v^) + eps) + lambda w;  w <- w - lr ||w|| / ||r|| r, a parameter a layer.

    m^ and v^ are Adam's bias-corrected averages of the gradient and its square. A layer with
    ||w|| = 0 or ||r|| = 0 takes the step with ratio 1. Algorithm 2 of the paper, phi(z) = z.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        reduce: Reduce | None = None,
    ) -> None:
        """weight_decay is lambda, decayed by the same ratio.

        reduce: of an island whose layers are sharded as plain tensors (DTensors, as `fully_shard`
        makes them, know their whole norms and need none). Given the squares of this shard's norms,
        fp32 [2 * layers], it returns their sums over all shards, so that the norms are those of
        the whole layers; called once a step, by all shards alike. Every shard must step with the
        same parameters having gradients. Raises MisuseError for settings that make no sense.
        """
        if not lr >= 0:
            raise MisuseError(f"lr must be at least 0, not {lr}")
        if not all(0 <= beta < 1 for beta in betas):
            raise MisuseError(f"betas must be in [0, 1), not {betas}")
        if not eps >= 0:
            raise MisuseError(f"eps must be at least 0, not {eps}")
        if not weight_decay >= 0:
            raise MisuseError(f"weight_decay must be at least 0, not {weight_decay}")
        self._reduce = reduce
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        layers = [
            (parameter, group)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        if not layers:
            return loss
        directions = [self._direction(parameter, group) for parameter, group in layers]
        squares = torch.stack(
            [x.float().square().sum() for x, _ in layers]
            + [x.float().square().sum() for x in directions]
        )
        if self._reduce is not None:
            squares = self._reduce(squares)
        weight, update = squares.sqrt().chunk(2)
        ratios = torch.where((weight > 0) & (update > 0), weight / update, 1.0)
        for (parameter, group), direction, ratio in zip(layers, directions, ratios, strict=True):
            parameter.sub_(direction.mul_(ratio.to(direction.dtype) * group["lr"]))
        return loss

    def _direction(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        """r; advances m and v."""
        gradient = parameter.grad
        assert gradient is not None  # step() picks those that have one
        if gradient.is_sparse:
            raise MisuseError("LAMB takes no sparse gradients")
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        beta1, beta2 = group["betas"]
        m, v = state["exp_avg"], state["exp_avg_sq"]
        m.mul_(beta1).add_(gradient, alpha=1 - beta1)
        v.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        m_hat = m / (1 - beta1 ** state["step"])
        v_hat = v / (1 - beta2 ** state["step"])
        direction: Tensor = m_hat / (v_hat.sqrt() + group["eps"])
        return direction.add_(parameter, alpha=group["weight_decay"])

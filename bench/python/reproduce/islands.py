"""Islands in one process: a stack of equal models, each with an inner AdamW of its own.

All islands compute in one batched forward and backward pass; their gradients and optimizers have
nothing to do with one another. An island's parameters are one flat vector: first its matrices (with
weight decay), then its other parameters.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from settings import Size
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "examples"))
import corpus
import gpt


class Data:
    """The standard library's text as blocks, in one seeded order that all methods follow."""

    def __init__(self, size: Size, seed: int, device: torch.device) -> None:
        text = corpus.load(max_bytes=size.corpus_bytes)
        self.fingerprint = text.fingerprint
        self._blocks = self._cut(text.train, size.block).to(device)
        self.passes = size.steps * size.islands * size.batch / len(self._blocks)
        random = np.random.default_rng([seed, 1])
        orders = [random.permutation(len(self._blocks)) for _ in range(math.ceil(self.passes))]
        self._order = torch.from_numpy(np.concatenate(orders)).to(device)
        held_out = self._cut(text.validation, size.block)
        stride = max(1, len(held_out) // size.validation_blocks)
        self.validation = held_out[::stride][: size.validation_blocks].to(device)

    @staticmethod
    def _cut(text: np.ndarray, block: int) -> Tensor:
        rows = text[: len(text) // (block + 1) * (block + 1)].reshape(-1, block + 1)
        return torch.from_numpy(rows.copy())

    def take(self, position: int, islands: int, batch: int) -> Tensor:
        """The next samples: int64 [islands, batch, block + 1]."""
        rows = self._order[position : position + islands * batch]
        return self._blocks[rows].view(islands, batch, -1).long()


class Graph:
    """A function of (leaves, tokens) recorded once as a CUDA graph: a step of so small a model
    would else spend most of its time on launching kernels."""

    def __init__(
        self,
        function: Callable[[list[Tensor], Tensor], tuple[Tensor, list[Tensor]]],
        leaves: list[Tensor],
        tokens: Tensor,
    ) -> None:
        self.leaves = list(map(id, leaves))
        self._tokens = tokens.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries set themselves up outside of the recording
            for _ in range(2):
                function(leaves, self._tokens)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._losses, self._gradients = function(leaves, self._tokens)

    def replay(self, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Losses and gradients, valid until the next replay."""
        self._tokens.copy_(tokens)
        self._graph.replay()
        return self._losses, self._gradients


class Islands:
    """size.islands models that begin with the same parameters."""

    def __init__(self, size: Size, seed: int, lr: float, device: torch.device) -> None:
        torch.manual_seed(seed)
        self.size = size
        self.device = device
        self._lr = lr
        self._model = gpt.GPT(
            gpt.Config(block=size.block, layers=size.layers, heads=size.heads, width=size.width)
        ).to(device)
        named = list(self._model.named_parameters())
        named.sort(key=lambda item: item[1].dim() < 2)  # stable: matrices first
        self.names = [name for name, _ in named]
        self.shapes = [tuple(parameter.shape) for _, parameter in named]
        self._sizes = [parameter.numel() for _, parameter in named]
        self.numel = sum(self._sizes)
        self._matrices = sum(p.numel() for _, p in named if p.dim() >= 2)
        self.first = torch.cat([p.detach().flatten() for _, p in named]).cpu()
        flat = self.first.to(device)
        self._leaves = [self._split(flat) for _ in range(size.islands)]
        # One optimizer for all: AdamW's state and step count are each parameter's own.
        self._inner = torch.optim.AdamW(
            [
                {"params": [pair[0] for pair in self._leaves], "weight_decay": size.weight_decay},
                {"params": [pair[1] for pair in self._leaves], "weight_decay": 0.0},
            ],
            lr=lr,
            betas=size.betas,
            fused=device.type == "cuda",
        )
        self._graphs: dict[int, Graph] = {}
        self.active = list(range(size.islands))

    def _split(self, flat: Tensor) -> tuple[nn.Parameter, nn.Parameter]:
        return (
            nn.Parameter(flat[: self._matrices].clone()),
            nn.Parameter(flat[self._matrices :].clone()),
        )

    def slices(self) -> dict[str, slice]:
        """Where each parameter lies in the flat vector."""
        found, begin = {}, 0
        for name, numel in zip(self.names, self._sizes, strict=True):
            found[name] = slice(begin, begin + numel)
            begin += numel
        return found

    def forget(self, island: int) -> None:
        """It is another island from here on: its inner optimizer begins anew."""
        for leaf in self._leaves[island]:
            self._inner.state.pop(leaf, None)

    def _losses(self, flat: Tensor, tokens: Tensor, *, shared: bool) -> Tensor:
        """Mean loss of each of the models flat [K, numel]; tokens [K, B, T + 1], or [B, T + 1] for
        all when shared."""
        parts = flat.split(self._sizes, dim=1)
        parameters = {
            name: part.view(len(flat), *shape)
            for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }

        def one(parameters: dict[str, Tensor], tokens: Tensor) -> Tensor:
            logits = functional_call(self._model, parameters, (tokens[:, :-1],))
            return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

        # The other attention kernels cannot be batched over models on every device.
        with sdpa_kernel(SDPBackend.MATH):
            return vmap(one, in_dims=(0, None if shared else 0))(parameters, tokens)

    def inner_step(self, tokens: Tensor, lr: float, *, averaged: bool) -> Tensor:
        """One step of all active islands; tokens [active, B, T + 1]. Returns their losses [active].

        averaged: every island steps along the mean of the gradients (data parallelism).
        """
        leaves = [leaf for island in self.active for leaf in self._leaves[island]]
        losses, gradients = self._gradients(leaves, tokens)
        if averaged:
            mean = [torch.stack(gradients[part::2]).mean(dim=0) for part in (0, 1)]
            gradients = mean * len(self.active)
        self._inner.zero_grad()
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf.grad = gradient
        for group in self._inner.param_groups:
            group["lr"] = lr
        self._inner.step()
        return losses

    def _gradients(self, leaves: list[Tensor], tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(losses [active], gradients of the leaves); on an accelerator by a recorded graph."""
        if self.device.type != "cuda":
            return self._computed(leaves, tokens)
        graph = self._graphs.get(len(self.active))
        if graph is None or graph.leaves != list(map(id, leaves)):
            graph = self._graphs[len(self.active)] = Graph(self._computed, leaves, tokens)
        return graph.replay(tokens)

    def _computed(self, leaves: list[Tensor], tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        flat = torch.stack([torch.cat(leaves[at : at + 2]) for at in range(0, len(leaves), 2)])
        losses = self._losses(flat, tokens, shared=False)
        return losses.detach(), list(torch.autograd.grad(losses.sum(), leaves))

    def gradient(self, flat: Tensor, tokens: Tensor) -> Tensor:
        """Of the mean loss at flat [numel] for tokens [B, T + 1]: fp32 [numel] on the host."""
        leaf = flat.to(self.device).requires_grad_()
        loss = self._losses(leaf[None], tokens[None], shared=False).sum()
        return torch.autograd.grad(loss, leaf)[0].cpu()

    @torch.no_grad()
    def gather(self) -> Tensor:
        """All islands' parameters on the host, fp32 [islands, numel]."""
        return torch.stack([torch.cat(pair) for pair in self._leaves]).cpu()

    @torch.no_grad()
    def scatter(self, island: int, flat: Tensor) -> None:
        """`flat` [numel] is the island's parameters now."""
        for leaf, part in zip(
            self._leaves[island],
            (flat[: self._matrices], flat[self._matrices :]),
            strict=True,
        ):
            leaf.copy_(part)

    @torch.no_grad()
    def validation_losses(self, flat: Tensor, data: Data, batch: int = 64) -> list[float]:
        """Of models flat [K, numel], nats a token."""
        flat = flat.to(self.device)
        total = torch.zeros(len(flat), dtype=torch.double, device=self.device)
        for start in range(0, len(data.validation), batch):
            tokens = data.validation[start : start + batch].long()
            total += self._losses(flat, tokens, shared=True).double() * len(tokens)
        return (total / len(data.validation)).tolist()

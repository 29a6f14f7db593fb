"""How this process computes, in 32 digits: workers with other digits cannot share a run's bits.

Instruction sets, thread counts, versions of torch and of its math libraries change roundings. What
an elastic island does is done here once on fixed numbers, without the model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from atoll.elastic import adamw, flat
from atoll.elastic.identity import key
from atoll.elastic.keyed import generator, keep_mask
from atoll.elastic.tree import Merger

_SEED = 8_191


def fingerprint(*, layers: bool = True) -> str:
    """32 hexadecimal digits; takes some milliseconds.

    layers: what passes through layers come to, too. Without it: sums, updates and draws alone, by
    which all copies of a state stay equal, whoever has made the gradients.
    """
    return flat.digest(*_sums(), *_updates(), *_drawn(), *(_layers() if layers else ()))


def _numbers(site: int, *shape: int) -> torch.Tensor:
    """Of sizes from 2^-8 to 2^8, so that each rounding shows. From bits alone: no library's log."""
    made = generator(key(_SEED, site))
    bits = torch.randint(-(2**23), 2**23, shape, generator=made).float() * 2.0**-23
    return bits * torch.randint(0, 16, shape, generator=made).float().sub(8).exp2()


def _sums() -> list[torch.Tensor]:
    """Micro-batches of 11, in the tree's order and by blocks."""
    merger = Merger(11, flat.add)
    for micro_batch in (3, 0, 10, 7, 1, 2, 9, 4, 8, 5, 6):
        merger.put((0, micro_batch), _numbers(micro_batch, 256))
    total = merger.total()
    return [total, torch.tensor(flat.squares(_numbers(20, 9_000)), dtype=torch.float64)]


def _updates() -> list[torch.Tensor]:
    p, m, v, g = (_numbers(30 + i, 320) for i in range(4))
    state = (p, m, v.square())
    for step in (1, 2):
        adamw.apply(adamw.AdamW(lr=1e-2, weight_decay=0.1), *state, g, step=step)
    return list(state)


def _drawn() -> list[torch.Tensor]:
    return [keep_mask(key(_SEED, 40), (333,), 0.3), torch.rand(65, generator=generator(key(41)))]


def _layers() -> list[torch.Tensor]:
    """Forward and backward through what transformers are made of."""
    x = _numbers(50, 6, 17, 48).tanh().requires_grad_()
    weight = _numbers(51, 144, 48).tanh().requires_grad_()
    q, k, v = F.linear(F.layer_norm(x, (48,)), weight).view(6, 17, 3, 4, 12).unbind(2)
    mixed = F.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True
    )
    hidden = F.gelu(mixed.flatten(2)) + F.silu(mixed.flatten(2))
    loss = F.cross_entropy(hidden.flatten(0, 1), torch.arange(24) % 7, reduction="sum")
    return [loss.detach(), *torch.autograd.grad(loss, [x, weight])]

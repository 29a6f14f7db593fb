"""Randomness that belongs to a piece of work: the same wherever, and however often, it is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from atoll.elastic.identity import key
from atoll.errors import MisuseError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(slots=True, kw_only=True)
class _Work:
    """What is being computed here. `sites` counts the masks drawn so far."""

    seed: int
    step: int
    micro_batch: int
    layer: int
    sites: int = field(default=0)


_current: ContextVar[_Work | None] = ContextVar("atoll_elastic_work", default=None)


def keep_mask(work_key: bytes, shape: tuple[int, ...], p: float) -> Tensor:
    """Which elements dropout keeps: bools of this shape, each True with probability 1 - p.

    The bits are those of Philox4x64-10 (Salmon et al., 2011) under the whole 128-bit key, 32 for an
    element; torch's CPU generator would use 32 bits of it. NumPy keeps this stream as it is.
    """
    count = int(np.prod(shape, dtype=np.int64))
    raw = np.random.Philox(key=int.from_bytes(work_key, "little")).random_raw((count + 1) // 2)
    words = raw.astype("<u8", copy=False).view("<u4")[:count]
    return torch.from_numpy(words >= np.uint32(min(round(p * 2**32), 2**32 - 1))).view(shape)


def seed_of(work_key: bytes) -> int:
    """The first 63 bits of a key, for generators that take an integer."""
    return int.from_bytes(work_key[:8], "little") >> 1


def generator(work_key: bytes, device: str = "cpu") -> torch.Generator:
    """A generator of torch's own, seeded by the key."""
    made = torch.Generator(device=device)
    made.manual_seed(seed_of(work_key))
    return made


@contextmanager
def work(seed: int, step: int, micro_batch: int, layer: int) -> Iterator[None]:
    """Everything random inside belongs to this piece of work.

    `Dropout` draws from H(seed, step, mb, layer, site), where the site counts the draws. Modules
    that use torch's global generator (nn.Dropout, attention's own dropout) find it seeded by
    H(seed, step, mb, layer), and the program finds it as it was before.
    """
    token = _current.set(_Work(seed=seed, step=step, micro_batch=micro_batch, layer=layer))
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_of(key(seed, step, micro_batch, layer)))
            yield
    finally:
        _current.reset(token)


class Dropout(nn.Module):
    """Zeroes elements with probability p and scales the others by 1 / (1 - p), while training.

    Needs a `work` around it, which an elastic island puts there; MisuseError otherwise.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise MisuseError(f"dropout of {p} is not in [0, 1)")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        current = _current.get()
        if current is None:
            raise MisuseError("keyed dropout is only used inside a step of an elastic island")
        drawn = key(current.seed, current.step, current.micro_batch, current.layer, current.sites)
        current.sites += 1
        kept: Tensor = keep_mask(drawn, tuple(x.shape), self.p)
        return x * kept.to(x.dtype).mul_(1.0 / (1.0 - self.p))

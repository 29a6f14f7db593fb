"""A training script that damages its own outer state on request: what faulty memory would do.

    parity_worker.py --flip ISLAND:ROUND:WHAT ...

WHAT: `theta` or `momentum`: a bit of the outer state changes in memory during the round;
`step`: the round's outer step computes something else; `twice`: as theta, in two chunks.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import torch

import atoll
from atoll import _core

ROUNDS = 9
ELEMENTS = 600_000  # three chunks a tensor
BIT = 1 << 30  # of the exponent: what is wrong is large


class Numbers:
    def __len__(self) -> int:
        return 100_000

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(float(index))


def flip(tensor: torch.Tensor, index: int) -> None:
    tensor.view(torch.int32)[index] ^= BIT


def wrong_step(index: int) -> Any:
    """The core's outer step, and then a bit of the result is another."""
    right = _core.nesterov_step

    def step(theta: int, *rest: Any) -> None:
        import ctypes

        right(theta, *rest)
        (ctypes.c_uint32 * ELEMENTS).from_address(theta)[index] ^= 1
        _core.nesterov_step = right

    return step


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--flip", action="append", default=[])
    parser.add_argument("--parity-every", type=int, default=1)
    args = parser.parse_args()
    island = os.environ["ATOLL_ISLAND"]
    flips = {}
    for text in args.flip:
        name, round_, what = text.split(":")
        if name == island:
            flips[int(round_)] = what

    model = torch.nn.Linear(ELEMENTS, 1, bias=False)
    inner = torch.optim.SGD(model.parameters(), lr=1e-3)
    with atoll.join() as session:
        outer = atoll.DiLoCo(session, model, inner, sync_every=2, parity_every=args.parity_every)
        for batch in session.batches(Numbers(), batch_size=2, rounds=ROUNDS):
            time.sleep(0.02)
            what = flips.pop(outer.round + 1, None)
            if what == "step":
                _core.nesterov_step = wrong_step(300_000)
            elif what == "momentum":
                flip(outer._state.now[0].momentum, 599_999)
            elif what is not None:
                flip(outer.outer_parameters(), 0)
                if what == "twice":
                    flip(outer.outer_parameters(), 599_999)
            loss = (model.weight * (1.0 + batch.mean() / 100_000) - 1.0).square().mean()
            loss.backward()
            inner.step()
            inner.zero_grad()
            outer.step(loss)


if __name__ == "__main__":
    main()

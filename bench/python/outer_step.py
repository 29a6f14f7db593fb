"""What `outer.step()` costs: without a due exchange, and with one that goes off in the background.

    python bench/python/outer_step.py [--elements 100000 10000000]

Alone, so nothing waits for a network: what is measured is this process's own work. Medians.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

import atoll

STEPS = 4000


class Blocks(torch.nn.Module):
    def __init__(self, elements: int, parameters: int = 16) -> None:
        super().__init__()
        each = elements // parameters
        self.blocks = torch.nn.ModuleList(
            torch.nn.Linear(each, 1, bias=False) for _ in range(parameters)
        )


def measure(kind: str, elements: int, options: dict[str, object]) -> dict[str, float]:
    """Microseconds of a step by what it did: nothing, sent something off, took something up."""
    model = Blocks(elements)
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    taken: dict[str, list[float]] = {"idle": [], "sends": [], "takes up": []}
    with atoll.join({"metrics_port": -1}) as session:
        outer = getattr(atoll, kind)(session, model, inner, sync_every=100, **options)
        for _ in range(STEPS):
            launched, index = outer._launched, outer._index
            began = time.perf_counter()
            outer.step()
            took = (time.perf_counter() - began) * 1e6
            if outer._index != index:
                taken["takes up"].append(took)
            elif outer._launched != launched:
                taken["sends"].append(took)
            else:
                taken["idle"].append(took)
            if launched != outer._launched:
                time.sleep(0.02 + elements * 2e-9)  # the model computes meanwhile
        outer.finish()
    return {what: statistics.median(each) for what, each in taken.items() if each}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, nargs="+", default=[100_000, 10_000_000])
    args = parser.parse_args()
    methods: list[tuple[str, str, dict[str, object]]] = [
        ("DiLoCo", "DiLoCo", {}),
        ("DiLoCo delayed", "DiLoCo", {"overlap": "delayed"}),
        ("streaming fp4, 4 fragments", "StreamingDiLoCo", {"overlap": 5}),
    ]
    for elements in args.elements:
        for name, kind, options in methods:
            found = measure(kind, elements, options)
            told = ", ".join(f"{what} {value:,.1f} us" for what, value in found.items())
            print(f"{elements:>12,} elements  {name:<28} {told}", flush=True)


if __name__ == "__main__":
    main()

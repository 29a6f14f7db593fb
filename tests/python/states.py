"""States whose every bit follows from their round, so that what is restored can be judged."""

from __future__ import annotations

from typing import Any

import torch

from atoll.checkpoint.places import Place
from atoll.checkpoint.read import Restored, restore
from atoll.checkpoint.write import Origin, Snapshot, Written, write

ORIGIN = Origin(job="reef", island="island-0", software="test")
SHAPES = {"a.weight": (300, 40), "a.bias": (40,), "b": (), "none": (0, 3)}


def groups(round_: int, scale: int = 1) -> dict[str, dict[str, torch.Tensor]]:
    """Two groups of tensors that are views of flat ones, as a method's are."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for number, group in enumerate(("parameters", "momentum")):
        generator = torch.Generator().manual_seed(1000 * round_ + number)
        shapes = {name: (scale * s[0], *s[1:]) if s else s for name, s in SHAPES.items()}
        sizes = [torch.Size(shape).numel() for shape in shapes.values()]
        flat = torch.randn(sum(sizes), generator=generator)
        parts = flat.split(sizes)
        found[group] = {
            name: part.view(shape)
            for (name, shape), part in zip(shapes.items(), parts, strict=True)
        }
    return found


def snapshot(round_: int, scale: int = 1) -> Snapshot:
    return Snapshot(
        round=round_,
        revision=round_ + 7,
        values={"round": round_, "scale": scale},
        groups=groups(round_, scale),
    )


def save(place: Place, round_: int, scale: int = 1) -> Written:
    return write(place, snapshot(round_, scale), ORIGIN, epoch=3)


class Reader:
    """Restores into fresh tensors and says whether they are the round's, bit for bit."""

    def __init__(self) -> None:
        self.targets: dict[str, dict[str, torch.Tensor]] = {}
        self.damaged: list[tuple[str, str]] = []

    def begin(self, values: dict[str, Any]) -> dict[str, dict[str, torch.Tensor]]:
        self.targets = {
            group: {name: torch.full_like(tensor, -1.0) for name, tensor in tensors.items()}
            for group, tensors in groups(values["round"], values["scale"]).items()
        }
        return self.targets

    def restore(self, place: Place, *, job: str = "reef", newer_than: int = 0) -> Restored | None:
        return restore(
            place,
            job=job,
            newer_than=newer_than,
            begin=self.begin,
            on_damaged=lambda name, problem: self.damaged.append((name, problem)),
        )

    def holds(self, round_: int, scale: int = 1) -> bool:
        wanted = groups(round_, scale)
        return all(
            torch.equal(tensor.view(torch.int32), self.targets[group][name].view(torch.int32))
            for group, tensors in wanted.items()
            for name, tensor in tensors.items()
        )

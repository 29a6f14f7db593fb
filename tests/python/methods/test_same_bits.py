"""DiLoCo's outer parameters, to the bit: what a refactor must not change.

The inner steps are exact arithmetic, so the numbers are the same on every machine. Weights and
their sums are powers of two, so it does not matter where the mean divides by them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

import atoll
from atoll.state.manifest import bytes_of, digest

if TYPE_CHECKING:
    from island_group import Form

    from atoll.session import Session

ROUNDS = 5


class Numbers:
    def __len__(self) -> int:
        return 4096

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(float(index))


def train(session: Session) -> str:
    generator = torch.Generator().manual_seed(11)
    model = torch.nn.Linear(1000, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    inner = torch.optim.SGD(model.parameters(), lr=1.0)
    outer = atoll.DiLoCo(session, model, inner, sync_every=2)
    for batch in session.batches(Numbers(), batch_size=4, rounds=ROUNDS):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(parameter * (batch.sum() / 65536.0))
        outer.step()
    return digest(bytes_of(outer.outer_parameters()))


def test_alone() -> None:
    with atoll.join({"metrics_port": -1}) as session:
        assert train(session) == "61bf76a79bdfc75fc16f360228c94c5c"


def test_two_islands(form: Form) -> None:
    """Whose share is whose does not matter for a sum of two."""
    found = form(2).each(lambda session, rank: train(session))
    assert found == ["5187544c1f958c61ec59802e82a7b018"] * 2

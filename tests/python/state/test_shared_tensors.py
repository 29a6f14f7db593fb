"""A program's own state: what it holds, what others of it are told, and what cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import atoll
from atoll import errors
from atoll.state.manifest import Manifest


@pytest.fixture
def session() -> Iterator[atoll.Session]:
    with atoll.join({"island": "alone", "metrics_port": -1}) as session:
        yield session


def test_every_op_makes_a_revision(session: atoll.Session) -> None:
    weights, counts = torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64)
    state = atoll.SharedTensors(session, {"w": weights, "n": counts}, {"step": 0})
    seen = {state.digest}
    for step in (1, 2):
        session.all_reduce(torch.ones(4)).wait()
        weights += step
        counts[0] += 1
        state.advance({"step": step})
        assert state.revision == step
        seen.add(state.digest)
    assert len(seen) == 3
    same = state.digest
    state.revision -= 1
    state.advance()
    assert (state.digest, state.values) == (same, {"step": 2})


def test_what_is_received_goes_where_it_belongs(session: atoll.Session) -> None:
    """As `atoll.state.sync` does it for a joiner."""
    weights = torch.nn.Parameter(torch.zeros(3, 2))
    state = atoll.SharedTensors(session, {"w": weights}, {"step": 0})
    served = Manifest(
        revision=7, values={"tensors": state._identity, "values": {"step": 5}}, tensors=()
    )
    (target,) = state.targets(served)
    target.view(torch.float32).copy_(torch.arange(6.0))
    assert weights.eq(0).all()  # not before it is verified
    state.adopt(served)
    assert torch.equal(weights.detach(), torch.arange(6.0).view(3, 2))
    assert (state.revision, state.values) == (7, {"step": 5})


def test_other_tensors_are_refused(session: atoll.Session) -> None:
    state = atoll.SharedTensors(session, {"w": torch.zeros(3, 2)})
    other = Manifest(revision=0, values={"tensors": "others", "values": {}}, tensors=())
    with pytest.raises(errors.MismatchError, match="has other tensors"):
        state.targets(other)


@pytest.mark.parametrize("values", [{"x": object()}, {"x": float("nan")}])
def test_values_are_json(session: atoll.Session, values: dict[str, Any]) -> None:
    with pytest.raises(errors.MisuseError, match="values must be JSON"):
        atoll.SharedTensors(session, {"w": torch.zeros(1)}, values)

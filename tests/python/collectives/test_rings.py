"""Islands of two shards, all in this process: collectives run ring by ring."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import torch
from harness import Coordinator

import atoll
from atoll.session import Session

PATIENCE_S = 60.0
SHARDS = 2


def join(port: int, island: str, shard: int) -> Session:
    return atoll.join(
        {
            "coordinator": f"127.0.0.1:{port}",
            "job": "reef",
            "island": island,
            "shard": shard,
            "shards": SHARDS,
            "metrics_port": -1,
        }
    )


@pytest.fixture
def sessions() -> Iterator[dict[tuple[str, int], Session]]:
    """Of the islands a, b and c, which are members of one view."""
    with ExitStack() as stack:
        coordinator = stack.enter_context(Coordinator(min_islands=3, leave_patience_s=0.1))
        found = {}
        for name in "abc":
            for shard in range(SHARDS):
                found[name, shard] = join(coordinator.port, name, shard)
                stack.callback(found[name, shard].close)
        for each in found.values():
            each._client.ready()
        for each in found.values():
            each._client.wait(lambda now: now.member, PATIENCE_S)
        yield found


def sums(sessions: dict[tuple[str, int], Session]) -> dict[tuple[str, int], float]:
    """Each adds its number, islands by tens, shards by hundreds."""

    def part(key: tuple[str, int]) -> float:
        number = 100.0 * key[1] + {"a": 1.0, "b": 2.0, "c": 4.0}[key[0]]
        return float(sessions[key].all_reduce(torch.tensor([number])).result(PATIENCE_S))

    with ThreadPoolExecutor(len(sessions)) as pool:
        return dict(zip(sessions, pool.map(part, sessions), strict=True))


def test_a_ring_adds_its_own_and_a_lost_shard_takes_its_island_along(
    sessions: dict[tuple[str, int], Session],
) -> None:
    assert [(each.shard, each.shards, each.size) for each in sessions.values()] == [
        (shard, SHARDS, 3) for _ in "abc" for shard in range(SHARDS)
    ]
    ranks = {name: {sessions[name, shard].rank for shard in range(SHARDS)} for name in "abc"}
    assert all(len(of_island) == 1 for of_island in ranks.values())
    assert set(sums(sessions).values()) == {7.0, 307.0}

    lost, mate = sessions.pop(("b", 1)), sessions.pop(("b", 0))
    lost._client.engine.close()
    lost._client.close()
    totals = sums(sessions)
    assert totals == {("a", 0): 5.0, ("a", 1): 205.0, ("c", 0): 5.0, ("c", 1): 205.0}
    with pytest.raises(atoll.errors.Expelled, match="shard 1 of this island was lost") as raised:
        mate.all_reduce(torch.ones(1)).result(PATIENCE_S)
    assert raised.value.reason == "shard_lost"


def test_a_shard_left_behind_by_its_island_is_told(
    sessions: dict[tuple[str, int], Session],
) -> None:
    leaver, mate = sessions.pop(("c", 0)), sessions.pop(("c", 1))
    leaver.close()
    with pytest.raises(atoll.errors.Expelled) as raised:
        mate._client.wait(lambda now: False, PATIENCE_S)
    assert raised.value.reason == "shard_lost"
    assert set(sums(sessions).values()) == {3.0, 203.0}


def train(session: Session, rounds: int) -> torch.Tensor:
    """A method on one shard of a model; shards have shapes of their own. Returns its parameters."""
    model = torch.nn.Linear(3 + session.shard, 2)
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    outer = atoll.DiLoCo(session, model, inner, sync_every=2)
    numbers = torch.arange(4096.0).reshape(-1, 1)
    for batch in session.batches(numbers, batch_size=1, rounds=rounds):
        loss = model(batch.expand(1, 3 + session.shard) / 4096).square().mean()
        loss.backward()
        inner.step()
        inner.zero_grad()
        outer.step(loss)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_a_method_runs_ring_by_ring() -> None:
    with ExitStack() as stack:
        coordinator = stack.enter_context(Coordinator(min_islands=2))
        pool = stack.enter_context(ThreadPoolExecutor(3 * SHARDS))

        def part(name: str, shard: int) -> torch.Tensor:
            with join(coordinator.port, name, shard) as session:
                return train(session, 40)

        # Two begin; the third may come while they train.
        futures = {(name, s): pool.submit(part, name, s) for name in "abc" for s in range(SHARDS)}
        results = {key: future.result(PATIENCE_S) for key, future in futures.items()}
    for shard in range(SHARDS):
        ring = [result for (_, s), result in results.items() if s == shard]
        assert len(ring) == 3
        assert all(torch.equal(each, ring[0]) for each in ring)
        assert ring[0].numel() == 2 * (3 + shard) + 2

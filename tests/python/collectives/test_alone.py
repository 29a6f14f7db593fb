"""A session alone: the same ops, with the results of a job of one; and what all sessions refuse."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import atoll
from atoll.collectives.options import CODECS, OPS, PLANS
from atoll.errors import MisuseError, TensorError

WAIT_S = 30.0


@pytest.fixture(scope="module")
def session() -> Iterator[atoll.Session]:
    with atoll.join({"coordinator": None, "metrics_port": -1}) as alone:
        yield alone


def test_every_op(session: atoll.Session) -> None:
    x = torch.randn(7, 3)
    for op in OPS:
        for plan in PLANS:
            handle = session.all_reduce(x, op=op, plan=plan)
            assert torch.equal(handle.result(WAIT_S), x)
            assert handle.outcome is not None
            assert (handle.outcome.members, handle.outcome.contributors) == (1, 1)
    assert session.part_of(21) == slice(0, 21)
    assert torch.equal(session.reduce_scatter(x).result(WAIT_S), x.flatten())
    assert torch.equal(session.all_gather(x).result(WAIT_S), x[None])
    (own,) = session.all_gather_list(x).result(WAIT_S)
    assert torch.equal(own, x)
    assert torch.equal(session.all_to_all(x).result(WAIT_S), x)
    assert torch.equal(session.broadcast(x, root=0).result(WAIT_S), x)
    session.barrier()
    y = x.clone()
    assert session.all_reduce(y, y, op="avg", weight=0.25).result(WAIT_S) is y
    torch.testing.assert_close(y, x)
    assert session.all_reduce(x, weight=0).result(WAIT_S).count_nonzero() == 0


@pytest.mark.parametrize("codec", CODECS)
def test_nothing_travels_so_nothing_is_rounded(session: atoll.Session, codec: str) -> None:
    x = torch.randn(1000)
    assert torch.equal(session.all_reduce(x, codec=codec).result(WAIT_S), x)


def test_awaiting_and_callbacks(session: atoll.Session) -> None:
    over = threading.Event()

    async def main() -> list[torch.Tensor]:
        handles = [session.all_reduce(torch.full((5,), float(n))) for n in range(100)]
        handles[0].add_done_callback(lambda handle: over.set())
        return await asyncio.gather(*handles)

    results = asyncio.run(asyncio.wait_for(main(), WAIT_S))
    assert [int(result[0]) for result in results] == list(range(100))
    assert over.wait(WAIT_S)


ONES = torch.ones(4)


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TensorError, "source is bool; reductions take float32, ", {"source": ONES.bool()}),
        (TensorError, "source is a list, not a torch tensor", {"source": [1.0]}),
        (TensorError, "source is on meta; pass source.cpu()", {"source": ONES.to("meta")}),
        (TensorError, "source is not contiguous", {"source": torch.ones(4, 4).t()}),
        (TensorError, "source has 4 elements, target 5", {"target": torch.ones(5)}),
        (TensorError, "source is float32 and target int32", {"target": ONES.int()}),
        (MisuseError, "op 'mean' is not known; known are sum, avg", {"op": "mean"}),
        (MisuseError, "plan 'rings' is not known; did you mean 'ring'?", {"plan": "rings"}),
        (MisuseError, "codec 'int8-minmax' is not known; did you mean", {"codec": "int8-minmax"}),
        (MisuseError, "rounding 'up' is not known", {"rounding": "up"}),
        (MisuseError, "weight must be a number from 0 on, not -1", {"weight": -1}),
        (MisuseError, "weight must be a number from 0 on, not nan", {"weight": math.nan}),
        (MisuseError, "only averages of floating-point numbers have weights", {"weight": 2.0}),
        (MisuseError, "channel 4096 is not in", {"channel": 4096}),
        (MisuseError, "priority 2147483648 is not in", {"priority": 1 << 31}),
        (MisuseError, "seed -1 is not in", {"seed": -1}),
        (MisuseError, "timeout_s must be a positive number of seconds", {"timeout_s": 0}),
        (
            MisuseError,
            "all_reduce: a codec takes float32 only",
            {
                "source": ONES.double(),
                "codec": "int8",
            },
        ),
        (
            MisuseError,
            "with a codec there are sums and averages only",
            {
                "codec": "int8",
                "op": "max",
            },
        ),
        (
            MisuseError,
            "the plans mesh and doubling know no codec",
            {
                "codec": "int8",
                "plan": "mesh",
            },
        ),
    ],
)
def test_what_all_reduce_refuses(
    session: atoll.Session, error: type[Exception], message: str, arguments: dict[str, Any]
) -> None:
    before = session.engine.stats()
    with pytest.raises(error) as raised:
        session.all_reduce(**{"source": ONES, **arguments})
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    after = session.engine.stats()
    assert after.ops_committed + after.ops_failed == before.ops_committed + before.ops_failed


def test_what_the_others_refuse(session: atoll.Session) -> None:
    block = torch.ones(12)
    with pytest.raises(MisuseError, match="input and output must not overlap"):
        session.all_reduce(block[:8], block[4:])
    with pytest.raises(TensorError, match="this member's part has 4 elements, target 3; it must"):
        session.reduce_scatter(ONES, torch.ones(3))
    with pytest.raises(TensorError, match="4 elements on each of 1 members, target 3"):
        session.all_gather(ONES, torch.ones(3))
    with pytest.raises(TensorError, match="source has no dimension"):
        session.all_gather_list(torch.tensor(1.0))
    with pytest.raises(TensorError, match="must name the rows of 1 members"):
        session.all_gather_list(ONES, sizes=[4, 4])
    with pytest.raises(TensorError, match="must be a multiple of the 1 members"):
        session.all_to_all(torch.tensor(1.0))
    with pytest.raises(MisuseError, match="root 1 is no rank of a view of 1"):
        session.broadcast(ONES, root=1)
    with pytest.raises(MisuseError, match="dst is this island itself"):
        session.send(ONES, 0)
    with pytest.raises(MisuseError, match="src 3 is no rank of a view of 1"):
        session.recv(ONES, 3)
    with pytest.raises(MisuseError, match="tag -1 is not in"):
        session.exchange(ONES, partner=bytes(16), tag=-1)
    with pytest.raises(MisuseError, match="view 9 is not one of the last"):
        session.all_gather(ONES, epoch=9)
    with pytest.raises(TensorError, match="tensor is a lazy view"):
        session.broadcast(torch.ones(3, dtype=torch.complex64).conj(), root=0)


def test_closed() -> None:
    session = atoll.join({"coordinator": None, "metrics_port": -1})
    session.close()
    with pytest.raises(atoll.errors.SessionClosed):
        session.all_gather(ONES)

"""Collectives when members go: what is bound to a view says so everywhere, the rest goes on."""

from __future__ import annotations

import asyncio
import re
import threading

import pytest
import torch
from island_group import Form

import atoll

pytestmark = pytest.mark.processes

WAIT_S = 30.0


def test_a_sum_is_that_of_the_survivors(form: Form) -> None:
    islands = form(3)
    sources = [torch.full((2000,), float(rank + 1)) for rank in range(3)]
    handles = [
        session.all_reduce(sources[rank]) for rank, session in enumerate(islands.sessions[:2])
    ]
    islands.lose(2)
    for handle in handles:
        assert handle.result(WAIT_S).tolist() == [3.0] * 2000
        assert handle.outcome is not None
        assert (handle.outcome.members, handle.outcome.contributors) == (2, 2)


def test_what_is_made_for_a_view_fails_in_the_next_and_works_when_called_again(form: Form) -> None:
    islands = form(3)
    sources = [torch.full((6,), float(rank + 1)) for rank in range(3)]
    a, b = islands.sessions[:2]
    bound = [
        [
            session.all_gather(sources[rank], channel=0),
            session.all_to_all(sources[rank], channel=1),
            session.reduce_scatter(sources[rank], channel=2),
            session.broadcast(sources[rank], root=0, channel=3),
            session.all_gather_list(sources[rank], sizes=[6, 6, 6], channel=4),
        ]
        for rank, session in enumerate((a, b))
    ]
    in_place = torch.ones(6)
    bound[0].append(a.all_to_all(in_place, in_place, channel=5))
    bound[1].append(b.all_to_all(torch.ones(6), channel=5))
    islands.lose(2)
    for handles in bound:
        for handle in handles:
            with pytest.raises(
                atoll.errors.ViewChanged,
                match=r": the view changed from 3 to 2 members while it was under way; call it "
                r"again$",
            ) as raised:
                handle.wait(WAIT_S)
            assert (raised.value.before, raised.value.after) == (3, 2)
            assert raised.value.retryable
    assert in_place.tolist() == [1.0] * 6
    assert [source.tolist() for source in sources[:2]] == [[1.0] * 6, [2.0] * 6]

    assert [session.size for session in (a, b)] == [2, 2]  # known by now
    gathered = islands.start(lambda session, rank: session.all_gather(sources[rank]))
    swapped = islands.start(lambda session, rank: session.all_to_all(sources[rank]))
    parts = islands.start(lambda session, rank: session.reduce_scatter(sources[rank]))
    for handle in gathered:
        assert torch.equal(handle.result(WAIT_S), torch.stack(sources[:2]))
    for handle in swapped:
        assert handle.result(WAIT_S).tolist() == [1.0] * 3 + [2.0] * 3
    for handle in parts:
        assert handle.result(WAIT_S).tolist() == [3.0] * 3


def test_awaiting_tells_of_the_view_too(form: Form) -> None:
    islands = form(3)

    async def gather(session: atoll.Session) -> torch.Tensor:
        while True:
            try:
                return await session.all_gather(torch.ones(2))
            except atoll.errors.ViewChanged:
                assert session.size == 2

    async def main() -> list[torch.Tensor]:
        tasks = [asyncio.create_task(gather(session)) for session in islands.sessions[:2]]
        await asyncio.sleep(0)
        await asyncio.to_thread(islands.lose, 2)
        return await asyncio.gather(*tasks)

    results = asyncio.run(asyncio.wait_for(main(), WAIT_S))
    assert [list(result.shape) for result in results] == [[2, 2]] * 2


def test_sizes_are_exchanged_within_the_same_view(form: Form) -> None:
    islands = form(3)
    lost = threading.Timer(0.2, islands.lose, [2])
    a, b = islands.sessions[:2]
    lost.start()

    def gather(session: atoll.Session) -> list[int]:
        for _ in range(5):
            try:
                every = session.all_gather_list(torch.ones(2 + (session is b), 4)).result(WAIT_S)
                return [len(one) for one in every]
            except atoll.errors.ViewChanged:
                pass
        return []

    results: dict[int, list[int]] = {}
    threads = [
        threading.Thread(target=lambda s=session, n=number: results.update({n: gather(s)}))
        for number, session in enumerate((a, b))
    ]
    for each in threads:
        each.start()
    for each in (*threads, lost):
        each.join(WAIT_S)
    assert results == {0: [2, 3], 1: [2, 3]}


def test_one_member_was_early(form: Form) -> None:
    """It called before the view changed, the other afterwards: both are told."""
    islands = form(3)
    a, b = islands.sessions[:2]
    old = b.view.epoch
    # Of another size per member, so that they could be taken for a mismatch.
    early = a.all_to_all(torch.ones(6))
    islands.lose(2)
    b._client.wait(lambda now: now.view.epoch > old, WAIT_S)
    late = b.all_to_all(torch.ones(6))
    with pytest.raises(atoll.errors.ViewChanged, match="from 3 to 2 members"):
        early.wait(WAIT_S)
    with pytest.raises(atoll.errors.ViewChanged, match=r"all-to-all.*: the view changed while"):
        late.wait(WAIT_S)
    # By name: an epoch read before is refused in the same way.
    stale = [session.all_gather(torch.ones(2), epoch=old) for session in (a, b)]
    for handle in stale:
        with pytest.raises(atoll.errors.ViewChanged):
            handle.wait(WAIT_S)
    again = [session.all_gather(torch.ones(2)) for session in (a, b)]
    assert [list(handle.result(WAIT_S).shape) for handle in again] == [[2, 2]] * 2


def test_the_root_of_a_broadcast_is_lost(form: Form) -> None:
    islands = form(3)
    root = islands.sessions[2].peer_id
    handles = [session.broadcast(torch.ones(3), root=root) for session in islands.sessions[:2]]
    islands.lose(2)
    for handle in handles:
        with pytest.raises(atoll.errors.PeerLost):
            handle.wait(WAIT_S)


def test_a_broadcast_from_a_peer_survives_the_loss_of_another(form: Form) -> None:
    islands = form(3)
    root = islands.sessions[1].peer_id
    handles = [
        session.broadcast(torch.full((3,), float(rank)), root=root)
        for rank, session in enumerate(islands.sessions[:2])
    ]
    islands.lose(2)
    assert [handle.result(WAIT_S).tolist() for handle in handles] == [[1.0] * 3] * 2


def test_a_lost_partner_is_named(form: Form) -> None:
    islands = form(2)
    partner = islands.sessions[1].peer_id
    handle = islands.sessions[0].recv(torch.zeros(3), partner)
    islands.lose(1)
    with pytest.raises(atoll.errors.PeerLost, match=re.escape(partner.hex()[:8])):
        handle.wait(WAIT_S)

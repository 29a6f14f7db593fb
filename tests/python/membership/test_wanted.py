"""Which newcomers come in together, against the definition."""

from __future__ import annotations

from bench import peer_id
from hypothesis import given
from hypothesis import strategies as st

from atoll.membership.islands import reach
from atoll.membership.messages import PeerInfo
from atoll.membership.records import Island, Peer
from atoll.membership.suspicion import largest_clique
from atoll.membership.wanted import clique

SHARDS = 2


def island(number: int, linked: list[int | None]) -> Island:
    peers = {}
    for shard, bits in enumerate(linked):
        place = SHARDS * number + shard
        info = PeerInfo(
            id=peer_id(str(place)), island=str(number), order=place, endpoints=(), shard=shard
        )
        peers[shard] = Peer(info=info, stream=1, heard_s=0.0, bit=1 << place, linked=bits)
    return Island(name=str(number), since_s=0.0, peers=peers, complete=True)


LINKS = st.one_of(st.none(), st.integers(0, 2**12 - 1), st.just(2**12 - 1))


@given(st.lists(st.lists(LINKS, min_size=2, max_size=2), max_size=6), st.integers(1, 4))
def test_the_largest_set_that_all_reach_each_other(
    links: list[list[int | None]], least: int
) -> None:
    islands = [island(number, linked) for number, linked in enumerate(links)]
    count = len(islands)
    apart = [(i, j) for j in range(count) for i in range(j) if not reach(islands[i], islands[j])]
    right = [islands[rank] for rank in largest_clique(count, apart)]
    assert clique(islands, least) == (right if len(right) >= least else [])

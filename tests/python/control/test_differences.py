"""Lists of peers told by differences: whatever was said before, the receiver knows the whole."""

from __future__ import annotations

import random

import pytest

from atoll.control.differences import Encoder, Incoming, Outgoing
from atoll.control.fields import MalformedMessage
from atoll.membership.messages import (
    ChangeKind,
    CoordinatorMessage,
    Endpoint,
    Fence,
    Install,
    PeerId,
    PeerInfo,
    Peers,
    View,
)
from atoll.pb import control_pb2 as pb


class Pair:
    """Both ends of a stream."""

    def __init__(self, encoder: Encoder) -> None:
        self.outgoing, self.incoming = Outgoing(encoder), Incoming()
        self.sent_bytes = 0

    def tell(self, message: CoordinatorMessage) -> CoordinatorMessage:
        data = self.outgoing.encode(message)
        self.sent_bytes += len(data)
        return self.incoming.decode(pb.CoordinatorMessage.FromString(data))


def _info(number: int, order: int, *, port: int = 1, shards: int = 1) -> PeerInfo:
    return PeerInfo(
        id=number.to_bytes(16, "big"),
        island=f"i{number // shards}",
        order=order,
        endpoints=(Endpoint(host="h", port=port),),
        shard=number % shards,
    )


def _holders(infos: list[PeerInfo], chance: random.Random) -> frozenset[PeerId]:
    return frozenset(info.id for info in infos if chance.random() < 0.5)


@pytest.mark.parametrize("seed", range(20))
def test_every_receiver_knows_the_whole(seed: int) -> None:
    chance = random.Random(seed)
    encoder = Encoder()
    pairs = [Pair(encoder) for _ in range(3)]
    infos: dict[int, PeerInfo] = {}
    for step in range(30):
        for number in chance.sample(range(12), 3):
            if chance.random() < 0.4:
                infos.pop(number, None)
            elif number not in infos or chance.random() < 0.2:
                infos[number] = _info(number, 100 * step + number, port=1 + step)
        listed = sorted(infos.values(), key=lambda info: info.order)
        holders = _holders(listed, chance)
        peers = Peers(peers=tuple(listed), holders=holders)
        if chance.random() < 0.2:
            chance.shuffle(listed)  # a view whose order is not that of age is told as it is
        view = View(epoch=step + 1, members=tuple(listed))
        starts = {0: step}
        install = Install(view=view, kind=ChangeKind.DRAIN, starts=starts, holders=holders)
        for pair in pairs:
            for message in (peers, install):
                if chance.random() < 0.7:
                    assert pair.tell(message) == message


def test_islands_of_several_peers_are_ordered_by_the_youngest() -> None:
    pair = Pair(Encoder())
    a, b, c = (
        [_info(2 * n, 10 + n, shards=2), _info(2 * n + 1, 20 - n, shards=2)] for n in range(3)
    )
    for epoch, islands in enumerate(([a, b], [b, a], [c, b, a], [c, a]), start=1):
        members = tuple(info for island in islands for info in island)
        install = Install(view=View(epoch=epoch, members=members), kind=ChangeKind.ABORT)
        assert pair.tell(install) == install


def test_one_that_comes_among_a_thousand_is_told_in_a_few_bytes() -> None:
    pair = Pair(Encoder())
    listed = tuple(_info(number, number) for number in range(1000))
    pair.tell(Peers(peers=listed))
    whole, pair.sent_bytes = pair.sent_bytes, 0
    pair.tell(Peers(peers=(*listed, _info(1000, 1000))))
    assert whole > 30_000
    assert pair.sent_bytes < 100


def test_what_goes_to_many_is_encoded_once() -> None:
    encoder = Encoder()
    fence = Fence(attempt=1, kind=ChangeKind.ABORT)
    assert Outgoing(encoder).encode(fence) is Outgoing(encoder).encode(fence)


@pytest.mark.parametrize(
    "message",
    [
        pb.CoordinatorMessage(peers_change=pb.PeersChange()),
        pb.CoordinatorMessage(install_change=pb.InstallChange(epoch=1, kind=pb.CHANGE_DRAIN)),
    ],
)
def test_a_difference_from_nothing_is_malformed(message: pb.CoordinatorMessage) -> None:
    with pytest.raises(MalformedMessage, match="never sent"):
        Incoming().decode(message)

"""Peers as bits: the same answers as sets give."""

from __future__ import annotations

import random

from atoll.membership.messages import PeerId
from atoll.membership.places import Places, each


def _peer(number: int) -> PeerId:
    return number.to_bytes(16, "big")


def test_bits_are_those_of_the_admitted() -> None:
    places = Places()
    bits = {number: places.admit(_peer(number)) for number in range(300)}
    assert len(set(bits.values())) == 300
    chance = random.Random(1)
    for size in (0, 1, 10, 63, 64, 65, 300):
        chosen = chance.sample(range(300), size)
        together = places.bits([_peer(number) for number in chosen])
        assert set(each(together)) == {bits[number] for number in chosen}
    assert places.bits([_peer(999)]) == 0


def test_a_bit_is_given_to_another_when_nobody_speaks_of_it_any_more() -> None:
    places = Places()
    a, b, c = (places.admit(_peer(number)) for number in range(3))
    places.forget({_peer(0)}, [a | b])
    assert places.admit(_peer(1)) == b  # somebody says it is linked with it
    assert places.admit(_peer(7)) == c
    assert len(places) == 3

"""Messages that travel together: what was said first is heard first, and nothing is lost."""

from __future__ import annotations

import asyncio

import pytest

from atoll.control.attached import also, parse
from atoll.control.channel import BREATH_BYTES, breath
from atoll.control.convert import coordinator_message_to_pb, peer_message_to_pb
from atoll.control.differences import Incoming
from atoll.control.fields import MalformedMessage
from atoll.membership.messages import (
    ChangeKind,
    CoordinatorMessage,
    Fence,
    Fenced,
    Heartbeat,
    LinkedMore,
    Measure,
    PeerId,
    PeerMessage,
)
from atoll.pb import control_pb2 as pb

SAID: list[PeerMessage] = [
    LinkedMore(removed=frozenset({b"a" * 16})),
    Fenced(attempt=1, epoch=2, progress={}),
    Heartbeat(),
]


def ids(count: int) -> frozenset[PeerId]:
    return frozenset(number.to_bytes(16, "big") for number in range(count))


def queue_of(messages: list[PeerMessage]) -> asyncio.Queue[PeerMessage]:
    queue: asyncio.Queue[PeerMessage] = asyncio.Queue()
    for message in messages:
        queue.put_nowait(message)
    return queue


def test_what_waits_goes_with_the_next_one() -> None:
    waiting = queue_of(SAID[1:])
    sent = breath(peer_message_to_pb(SAID[0]), waiting)
    assert waiting.empty()
    assert parse(sent.SerializeToString()) == SAID


def test_a_breath_ends() -> None:
    many = LinkedMore(added=ids(BREATH_BYTES // 64))
    waiting = queue_of([many] * 10)
    sent = breath(peer_message_to_pb(many), waiting)
    assert 0 < len(sent.also) < 10
    assert len(sent.also) + waiting.qsize() == 10


@pytest.mark.parametrize("count", [0, 1, 5, 6, 10, 900])
def test_encoded_messages_are_put_behind_one_another(count: int) -> None:
    said: list[CoordinatorMessage] = [
        Fence(attempt=3, kind=ChangeKind.ABORT),
        Measure(number=1, epoch=1, fresh=ids(count), burst_s=0.1, slot_s=0.25),
        Heartbeat(),
    ]
    first, *others = (coordinator_message_to_pb(m).SerializeToString() for m in said)
    message = pb.CoordinatorMessage.FromString(first + b"".join(map(also, others)))
    incoming = Incoming()
    assert [incoming.decode(one) for one in (message, *message.also)] == said


def test_one_bad_message_spoils_the_breath() -> None:
    message = peer_message_to_pb(Heartbeat())
    message.also.add()
    with pytest.raises(MalformedMessage):
        parse(message.SerializeToString())

"""One peer's connection to the coordinator: what it says, and what waits to be said to it.

Thread: the coordinator's loop.
"""

from __future__ import annotations

import asyncio
from typing import Any

from google.protobuf.message import DecodeError

from atoll.control.channel import BREATH_BYTES
from atoll.control.convert import peer_message_from_pb
from atoll.control.differences import Encoder, Outgoing
from atoll.control.fields import MalformedMessage
from atoll.control.term import Term
from atoll.membership.messages import PeerMessage
from atoll.pb import control_pb2 as pb

QUEUED_MESSAGES = 1024
"""For one peer. At one change of view a second, each with a list of peers: minutes."""


ALSO = b"\xa2\x01"
"""The field's number and its kind (length and bytes), as protobuf writes them."""


class Attached:
    """One peer's connection, and what waits to be sent on it."""

    def __init__(self, number: int, term: Term, encoder: Encoder) -> None:
        self.number = number
        self.term = term
        self.outgoing = Outgoing(encoder)
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUED_MESSAGES)
        self.stuck = asyncio.Event()

    def put(self, item: bytes | None) -> None:
        try:
            self.queue.put_nowait(item)
        except asyncio.QueueFull:
            self.stuck.set()


def parse(data: bytes) -> list[PeerMessage]:
    """What a peer said in one breath. Raises MalformedMessage."""
    try:
        message = pb.PeerMessage.FromString(data)
    except DecodeError:
        raise MalformedMessage("not a message of this protocol") from None
    return [peer_message_from_pb(one) for one in (message, *message.also)]


async def write(stream: Attached, context: Any) -> None:
    while True:
        item = await stream.queue.get()
        if item is None:
            return
        parts = [item]
        size, ends = len(item), False
        while size < BREATH_BYTES and not ends and not stream.queue.empty():
            following = stream.queue.get_nowait()
            ends = following is None
            if following is not None:
                parts.append(also(following))
                size += len(following)
        await context.write(b"".join(parts))
        if ends:
            return


def also(message: bytes) -> bytes:
    """An encoded CoordinatorMessage as the field `also` of the one before: put behind that one, it
    goes with it."""
    length, size = bytearray(), len(message)
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return ALSO + bytes(length) + message

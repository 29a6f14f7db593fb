"""A peer's stream to the coordinator: one at a time, what is said on it, what is heard.

Thread: the control thread's loop. It owns the stream's task and the queue of what is still to be
said; a stream that ends says so once, as StreamLost, and whoever owns this decides when to open the
next one. docs/threads.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc

from atoll.control.channel import SERVICE, open_channel, say
from atoll.control.differences import Incoming
from atoll.control.fields import MalformedMessage
from atoll.membership.messages import PeerMessage
from atoll.membership.peer_events import Heard, StreamLost, StreamUp
from atoll.pb import control_pb2 as pb

if TYPE_CHECKING:
    from atoll.trust.identity import Identity

logger = logging.getLogger(__name__)

FLUSH_S = 1.0
"""How long the last words may take to reach the coordinator."""


class CoordinatorStream:
    """What a stream brings goes to `on_event`: StreamUp, Heard and in the end StreamLost."""

    def __init__(
        self,
        coordinator: str,
        on_event: Callable[[StreamUp | Heard | StreamLost], None],
        wanted: Callable[[], bool],
        identity: Identity | None = None,
    ) -> None:
        """coordinator: HOST:PORT of the first one. `wanted`: whether a stream is to be opened when
        it is due."""
        self._identity = identity
        self._coordinator = coordinator
        self._on_event = on_event
        self._wanted = wanted
        self._outgoing: asyncio.Queue[PeerMessage] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._due: asyncio.TimerHandle | None = None
        self._failure: BaseException | None = None

    def say(self, message: PeerMessage) -> None:
        """Queues it; what a stream has not said when it ends is lost with it."""
        self._outgoing.put_nowait(message)

    def open(self) -> None:
        """Opens a stream now, if one is wanted."""
        self._due = None
        if self._wanted():
            self._outgoing = asyncio.Queue()
            self._task = asyncio.create_task(self._talk(self._outgoing))
            self._task.add_done_callback(self._over)

    def check(self) -> None:
        """Raises what a stream has ended with if nothing expects that: whoever hears what it brings
        has failed, and nobody would go on."""
        if self._failure is not None:
            raise self._failure

    def _over(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._failure = task.exception()

    def reopen(self, at_s: float, coordinator: str) -> None:
        """Gives up the stream, if there is one, and opens another to `coordinator` at `at_s`
        (monotonic seconds)."""
        self._coordinator = coordinator
        if self._task is not None:
            self._task.cancel()
            self._task = None
        delay_s = max(0.0, at_s - time.monotonic())
        self._due = asyncio.get_running_loop().call_later(delay_s, self.open)

    async def close(self) -> None:
        """Ends the stream for good, after at most FLUSH_S for what is still to be said."""
        if self._due is not None:
            self._due.cancel()
        await self._flush()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _flush(self) -> None:
        task = self._task
        if task is None or task.done():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                while not self._outgoing.empty() and not task.done():
                    await asyncio.sleep(0.005)
                await asyncio.sleep(0.01)  # for the message that was taken last

    async def _talk(self, outgoing: asyncio.Queue[PeerMessage]) -> None:
        """One stream, from its opening to its end."""
        message = "the coordinator closed it"
        async with open_channel(self._coordinator, self._identity) as channel:
            attach: Any = channel.stream_stream(
                f"/{SERVICE}/Attach",
                request_serializer=pb.PeerMessage.SerializeToString,
                response_deserializer=pb.CoordinatorMessage.FromString,
            )
            call = attach()
            self._on_event(StreamUp())
            writer = asyncio.create_task(say(call, outgoing))
            try:
                await self._listen(call)
            except (grpc.RpcError, MalformedMessage) as error:
                code = error.code() if isinstance(error, grpc.aio.AioRpcError) else None
                message = code.name.lower() if code else str(error)
            finally:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
                call.cancel()
        logger.debug("stream to the coordinator ended: %s", message)
        if self._task is asyncio.current_task():
            self._task = None
            self._on_event(StreamLost(message=message))

    async def _listen(self, call: Any) -> None:
        incoming = Incoming()
        while True:
            message = await call.read()
            if not isinstance(message, pb.CoordinatorMessage):  # EOF
                return
            for one in (message, *message.also):
                self._on_event(Heard(message=incoming.decode(one)))
                if self._task is not asyncio.current_task():
                    return  # what was heard made it give this stream up

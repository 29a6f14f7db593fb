"""Drives a member's programs over a session: its views, its links, its collectives.

Thread: the user's. Requests that the view's change has made void are answered by throwing
`Interrupted`: an exchange lives in one view and ends with it, so nothing stays blocked, and a
gathering either commits for all who stay or fails for all of them.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, assert_never

import numpy as np
import torch

from atoll import errors
from atoll.elastic.identity import Worker
from atoll.elastic.requests import (
    Expect,
    Gather,
    Interrupted,
    Key,
    Meet,
    Outside,
    OutsideChanged,
    Program,
    Receive,
    Request,
    Result,
    Send,
    Watch,
    dump,
    load,
)
from atoll.methods.background import Background, Flight

if TYPE_CHECKING:
    from atoll.collectives.handle import Handle
    from atoll.session import Session

T = TypeVar("T")

CHANNEL = 2
"""Of the session's channels; 0 is the user's, 1 that of outer methods."""

MIGRATING = 3
"""The channel of state that moves while a step runs: whatever the step sends goes first."""

_SLICE_S = 0.05
"""While something is awaited the view is looked at this often: a message that was expected after
the change of view, by a member that had not noticed it yet, would never come."""


class Sending(NamedTuple):
    """A tensor on its way, and the first part of its key."""

    handle: Handle[torch.Tensor]
    what: str
    target: Worker
    nbytes: int


class Links:
    """See the module."""

    def __init__(
        self,
        session: Session,
        *,
        timeout_s: float = 60.0,
        observe: Callable[[Request], None] = lambda request: None,
        interrupted: Callable[[int], None] = lambda epoch: None,
        outside: Callable[[], Session] | None = None,
    ) -> None:
        """timeout_s: the most that anything may take, a change of view included. observe: called
        with each request before it is carried out. interrupted: called when the view has changed,
        with its epoch. outside: joins the outer job, when a program first asks for it."""
        self._session = session
        self._timeout_s = timeout_s
        self._observe = observe
        self._interrupted = interrupted
        self._join_outside = outside
        self._outside: Links | None = None
        self._background = Background()
        self._flight: tuple[Flight[Any], threading.Event] | None = None
        self._epoch = 0
        self._sent_bytes: Counter[tuple[str, Worker]] = Counter()
        self._sends: list[Sending] = []
        self._arrived: queue.SimpleQueue[Key] = queue.SimpleQueue()
        self._handles: dict[Key, Handle[torch.Tensor]] = {}
        session._ops()  # joins the view
        self._look()

    def run(self, program: Program[Result]) -> Result:
        """Carries a program to its end. Raises what it raises, and what ends the session."""
        answer: object = None
        interrupted: Interrupted | OutsideChanged | None = None
        while True:
            try:
                if interrupted is None:
                    request = program.send(answer)
                else:
                    request = program.throw(interrupted)
            except StopIteration as end:
                result: Result = end.value
                return result
            self._observe(request)
            answer, interrupted = None, None
            try:
                answer = self._carry_out(request)
            except (Interrupted, OutsideChanged) as change:
                interrupted = change
                if isinstance(change, Interrupted):
                    self._interrupted(self._epoch)

    def _carry_out(self, request: Request) -> object:
        match request:
            case Send(target=target, key=key, tensor=tensor):
                self._count_sent()
                channel = _channel(key)
                handle = self._session.send(
                    tensor,
                    bytes.fromhex(target),
                    tag=self._tag(key),
                    channel=channel,
                    priority=-(channel == MIGRATING),
                    timeout_s=self._timeout_s,
                )
                self._sends.append(Sending(handle, str(key[0]), target, tensor.nbytes))
            case Expect(source=source, key=key, target=target_tensor):
                handle = self._session.recv(
                    target_tensor,
                    bytes.fromhex(source),
                    tag=self._tag(key),
                    channel=_channel(key),
                    timeout_s=self._timeout_s,
                )
                arrived = self._arrived
                self._handles[key] = handle
                handle.add_done_callback(lambda _: arrived.put(key))
            case Receive():
                return self._receive()
            case Gather(what=what, text=text):
                return self._gather(what, text)
            case Meet(needs=needs):
                links = self._beyond(needs)
                links._look()
                return links._session.peer_id.hex()
            case Outside(request=inner, needs=needs):
                links = self._beyond(needs)
                try:
                    if isinstance(inner, Gather):
                        return self._aside(partial(links._carry_out, inner), needs)
                    return links._carry_out(inner)
                except Interrupted as change:
                    raise OutsideChanged(change.members) from change
            case Watch(needs=needs):
                self._watch(needs)
            case _:
                assert_never(request)
        return None

    @property
    def sent_bytes(self) -> Counter[tuple[str, Worker]]:
        """Of tensors by the first part of their keys, and by target; of texts as "gathered". What a
        change of view interrupted is not in it."""
        self._count_sent()
        return Counter(self._sent_bytes)

    def _count_sent(self) -> None:
        under_way = []
        for sending in self._sends:
            if not sending.handle.done():
                under_way.append(sending)
                continue
            with suppress(errors.AtollError):
                sending.handle.wait(0)
                self._sent_bytes[sending.what, sending.target] += sending.nbytes
        self._sends = under_way

    def close(self) -> None:
        """Leaves the outer job, if this worker is in one."""
        if self._outside is not None:
            self._outside._session.close()

    def _beyond(self, needs: tuple[str, ...]) -> Links:
        """The outer job's; nothing is under way there."""
        if self._outside is None:
            self._outside = self._aside(self._enter_outside, needs)
        elif self._flight is not None:
            with suppress(Interrupted):
                self._aside(None, needs)
            self._check(needs)
        return self._outside

    def _enter_outside(self) -> Links:
        if self._join_outside is None:
            raise errors.MisuseError("this island has no outer job")
        return Links(self._join_outside(), timeout_s=self._timeout_s)

    def _aside(self, work: Callable[[], T] | None, needs: tuple[str, ...]) -> Any:
        """Runs it on a thread of its own, while the island's view is looked at; None: goes on
        waiting for what runs there already."""
        if self._flight is None:
            assert work is not None
            over = threading.Event()

            def run() -> T:
                try:
                    return work()
                finally:
                    over.set()

            self._flight = (self._background.start(run), over)
        flight, over = self._flight
        while not over.wait(_SLICE_S):
            self._check(needs)
        self._flight = None
        return flight.result()

    def _check(self, needs: tuple[str, ...]) -> None:
        """Raises Interrupted if the island's view lacks one of these."""
        members = {peer.hex() for peer in self._session.view.ids}
        if not members.issuperset(needs):
            raise self._look()

    def _watch(self, needs: tuple[str, ...]) -> None:
        self._check(needs)
        links = self._beyond(needs)
        known = links._epoch
        with suppress(errors.DeadlineExceeded):
            links._session._client.wait(lambda now: now.view.epoch != known, _SLICE_S)

    def _receive(self) -> Key:
        end_s = time.monotonic() + self._timeout_s
        while time.monotonic() < end_s:
            try:
                key = self._arrived.get(timeout=_SLICE_S)
            except queue.Empty:
                if self._session.view.epoch != self._epoch:
                    raise self._next_view() from None
                continue
            handle = self._handles.pop(key)
            try:
                handle.wait(0)
            except errors.PeerLost as fault:
                raise self._next_view() from fault
            return key
        raise errors.DeadlineExceeded(
            f"nothing arrived within {self._timeout_s:g} s of {len(self._handles)} tensors"
        )

    def _gather(self, what: str, text: str) -> dict[str, str]:
        if self._session.view.epoch != self._epoch:
            raise self._next_view()
        own = torch.from_numpy(np.frombuffer(dump(what=what, text=text).encode(), np.uint8).copy())
        try:
            told = self._session.all_gather_list(
                own, channel=CHANNEL, timeout_s=self._timeout_s, epoch=self._epoch
            ).result()
        except errors.ViewChanged as fault:
            # Either the view is another by now, or this gathering of the present view met one that
            # somebody had begun in the view before, and both failed for everybody.
            raise self._look() from fault
        for target in self._members:
            if target != self._session.peer_id.hex():
                self._sent_bytes["gathered", target] += own.nbytes
        said = [load(each.numpy().tobytes().decode()) for each in told]
        if any(each["what"] != what for each in said):
            # Somebody was interrupted by a new view of the same members, which fails no gathering.
            raise self._look()
        return dict(zip(self._members, (each["text"] for each in said), strict=True))

    def _next_view(self) -> Interrupted:
        """Waits until the view that ended an op is known here."""
        before = self._epoch
        self._session._client.wait(lambda now: now.view.epoch != before, self._timeout_s)
        return self._look()

    def _look(self) -> Interrupted:
        """What is under way belongs to the view before; this one begins with nothing."""
        view = self._session.view
        self._epoch = view.epoch
        self._members = tuple(peer.hex() for peer in view.ids)
        self._count_sent()
        self._sends, self._handles = [], {}
        self._arrived = queue.SimpleQueue()
        return Interrupted(self._members)

    def _tag(self, key: Key) -> int:
        """64 bits of a hash: exchanges of one view meet by it."""
        text = repr((self._epoch, *key)).encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _channel(key: Key) -> int:
    return MIGRATING if key[0] == "state" else CHANNEL

"""A model of what lies between processes: links between engines, streams to the coordinator.

Both keep the order of what is sent and lose everything under way when they break; the two ends
notice at different times.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from atoll.membership.messages import (
    CoordinatorMessage,
    Linked,
    LinkedMore,
    PeerId,
    PeerMessage,
    Peers,
    Register,
    Suspect,
    Unreached,
    Welcome,
)
from atoll.sim.engine import Frame
from atoll.sim.world import Fifo, World

RETRY_S = 0.05
DIAL_TIMEOUT_S = 1.0
SILENCE_S = 0.5
AGAIN_S = 0.3
HOW_THINGS_STAND = (Register, Welcome, Peers, Linked, LinkedMore, Suspect, Unreached)
"""What these say is true until the next one of their kind; a stream keeps its order for them."""


class End(Protocol):
    """A process, as the network sees it. `deliver` waits while the process is frozen."""

    id: PeerId
    alive: bool
    secret: bytes

    def deliver(self, action: Callable[[], None]) -> None: ...
    def expects(self, peer: PeerId) -> bool: ...
    def carries(self, one: PeerId, other: PeerId) -> bool: ...
    def on_link_up(self, link: Link) -> None: ...
    def on_link_down(self, peer: PeerId, reason: str) -> None: ...
    def on_frame(self, link: Link, sender: PeerId, payload: Frame | State) -> None: ...


class State:
    """A request for shared state, or the answer. `digest` None: a request."""

    def __init__(self, revision: int, digest: str | None) -> None:
        self.revision, self.digest = revision, digest


class Link:
    """One incarnation of a link between two engines."""

    def __init__(self, world: World, one: End, other: End, relay: PeerId = b"") -> None:
        self.world = world
        self.relay = relay  # through whom it goes
        self.ends = {one.id: one, other.id: other}
        self.up: set[PeerId] = set()  # ends that may use it
        self.mute: set[PeerId] = set()  # ends that are not heard any more
        self.finished: set[PeerId] = set()
        slow_s = world.between(0.002, world.random.choice((0.01, 0.03, 0.1)))
        self._paths = {peer: Fifo(world, 0.0005, slow_s) for peer in self.ends}
        for end in (one, other):
            world.after(world.between(0.0, 0.02), lambda end=end: self._open(end))  # type: ignore[misc]

    def other(self, peer: PeerId) -> End:
        return next(end for peer_id, end in self.ends.items() if peer_id != peer)

    def send(self, sender: PeerId, payload: Frame | State) -> None:
        receiver = self.other(sender)
        if sender in self.finished:
            return

        def arrive() -> None:
            if sender not in self.mute and receiver.id not in self.finished:
                receiver.deliver(lambda: self._hand_over(receiver, sender, payload))

        self._paths[sender].push(arrive)

    def end(self, peer: PeerId, *, flush: bool) -> None:
        """One end closes it, or dies. flush: what it had sent still arrives."""
        if peer in self.finished:
            return
        self.finished.add(peer)
        other = self.other(peer)
        if flush:
            self._paths[peer].push(lambda: other.deliver(lambda: self.close(other.id, "reset")))
        else:
            self.mute.add(peer)
            # Of two on one machine, the kernel says so before the connections end.
            reason = self.world.random.choice(("reset", "reset", "died"))
            delay_s = self.world.between(0.001, 0.05)
            self.world.after(delay_s, lambda: other.deliver(lambda: self.close(other.id, reason)))

    def cut(self, *, mute: set[PeerId]) -> None:
        """The network swallows what the ends in `mute` send from now on. Silence is noticed."""
        self.mute |= mute
        for peer in sorted(mute):
            other = self.other(peer)
            delay_s = SILENCE_S + self.world.between(0.0, 0.3)
            self.world.after(delay_s, lambda o=other: o.deliver(lambda: self.close(o.id, "silent")))  # type: ignore[misc]

    def lose_relay(self) -> None:
        """Whoever carries it is gone: each end notices in its own time."""
        self.mute |= self.ends.keys()
        for peer in self.ends:
            delay_s = self.world.between(0.001, 0.05)
            self.world.after(delay_s, partial(self._notice, peer))

    def _notice(self, peer: PeerId) -> None:
        self.ends[peer].deliver(lambda: self.close(peer, "reset"))

    def close(self, peer: PeerId, reason: str) -> None:
        """One end notices that it is over."""
        end = self.ends[peer]
        if peer in self.finished:
            return
        self.end(peer, flush=True)
        end.on_link_down(self.other(peer).id, reason)

    def _open(self, end: End) -> None:
        def now() -> None:
            if end.id not in self.finished:
                self.up.add(end.id)
                end.on_link_up(self)

        end.deliver(now)

    def _hand_over(self, receiver: End, sender: PeerId, payload: Frame | State) -> None:
        if receiver.id in self.finished:
            return
        if receiver.id not in self.up:  # its own notice of the link is still under way
            self.world.after(
                0.002, lambda: receiver.deliver(lambda: self._hand_over(receiver, sender, payload))
            )
            return
        receiver.on_frame(self, sender, payload)


class Network:
    """Which pairs of islands can reach each other, and the dialling."""

    def __init__(self, world: World, reachable: Callable[[PeerId, PeerId], bool]) -> None:
        self.world = world
        self._reachable = reachable
        self.blocked: set[frozenset[PeerId]] = set()
        self.links: dict[frozenset[PeerId], Link] = {}
        self._dials: dict[tuple[PeerId, PeerId], int] = {}  # so many, of which the last counts

    def dial(
        self,
        caller: End,
        find: Callable[[PeerId], End | None],
        peer: PeerId,
        relay: PeerId = b"",
    ) -> None:
        """Keeps trying for a while, or until it is to try another way; gives up with a link that
        never was."""
        pair = frozenset((caller.id, peer))
        until_s = self.world.now_s + DIAL_TIMEOUT_S
        number = self._dials[caller.id, peer] = self._dials.get((caller.id, peer), 0) + 1

        def attempt() -> None:
            if not caller.alive or not caller.expects(peer):
                return
            if self._dials[caller.id, peer] != number:
                return
            old = self.links.get(pair)
            if old is not None and caller.id not in old.finished:
                return
            end = find(peer)
            open_ = self._open(caller.id, peer)
            known = end is not None and end.secret == caller.secret
            if relay:
                between = find(relay)
                open_ = (
                    between is not None
                    and between.carries(caller.id, peer)
                    and self._open(caller.id, relay)
                    and self._open(peer, relay)
                )
            if end is not None and end.expects(caller.id) and open_ and known:
                if old is not None:
                    old.close(end.id, "reset")
                self.links[pair] = Link(self.world, caller, end, relay)
            elif self.world.now_s < until_s:
                self.world.after(RETRY_S, lambda: caller.deliver(attempt))
            else:
                caller.on_link_down(peer, "unreachable")

        self.world.after(self.world.between(0.0, 0.02), lambda: caller.deliver(attempt))

    def _open(self, one: PeerId, other: PeerId) -> bool:
        return frozenset((one, other)) not in self.blocked and self._reachable(one, other)

    def through(self, peer: PeerId) -> list[Link]:
        """Those that it relays."""
        return [link for link in self.links.values() if link.relay == peer]

    def of(self, peer: PeerId) -> list[Link]:
        return [link for pair, link in self.links.items() if peer in pair]


class Stream:
    """A peer's connection to one incarnation of the coordinator. `twice`: whether a message comes
    once more, after others that were sent later."""

    def __init__(
        self,
        world: World,
        number: int,
        *,
        twice: Callable[[], bool] = lambda: False,
        to_coordinator: Callable[[PeerMessage, tuple[PeerMessage, ...]], None],
        to_peer: Callable[[CoordinatorMessage], None],
        lost_at_coordinator: Callable[[], None],
        lost_at_peer: Callable[[], None],
    ) -> None:
        self.number = number
        self.broken = False
        self._world, self._twice = world, twice
        slow = world.between(0.002, world.random.choice((0.02, 0.05, 0.3)))
        self._up, self._down = Fifo(world, 0.0005, slow), Fifo(world, 0.0005, slow)
        self._to_coordinator, self._to_peer = to_coordinator, to_peer
        self._breath: list[PeerMessage] = []
        self._breath_s = 0.0
        self._lost_at_coordinator, self._lost_at_peer = lost_at_coordinator, lost_at_peer

    def say(self, message: PeerMessage) -> None:
        """What is said in one moment arrives together: when the last of it does."""
        if self._breath and self._world.now_s == self._breath_s:
            self._breath.append(message)
        else:
            self._breath, self._breath_s = [message], self._world.now_s
        breath, number = self._breath, len(self._breath)

        def arrive() -> None:
            if number == len(breath):
                self._to_coordinator(breath[0], tuple(breath[1:]))

        self._send(self._up, message, arrive, lambda: self._to_coordinator(message, ()))

    def tell(self, message: CoordinatorMessage) -> None:
        def arrive() -> None:
            self._to_peer(message)

        self._send(self._down, message, arrive, arrive)

    def _send(
        self, path: Fifo, message: object, arrive: Callable[[], None], again: Callable[[], None]
    ) -> None:
        def push(action: Callable[[], None]) -> None:
            path.push(lambda: None if self.broken else action())

        push(arrive)
        if not isinstance(message, HOW_THINGS_STAND) and self._twice():
            self._world.after(self._world.between(0.0, AGAIN_S), lambda: push(again))

    def end_by_coordinator(self) -> None:
        """After its last word."""
        self._down.push(self.break_now)

    def end_by_peer(self) -> None:
        self._up.push(self.break_now)

    def break_now(self) -> None:
        """Everything under way is lost; each side notices in its own time."""
        if self.broken:
            return
        self.broken = True
        self._world.after(self._world.between(0.0, 0.1), self._lost_at_coordinator)
        self._world.after(self._world.between(0.0, 0.1), self._lost_at_peer)

"""A model of what lies between processes: links between engines, streams to the coordinator.

Both keep the order of what is sent and lose everything under way when they break; the two ends
notice at different times.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from atoll.membership.messages import CoordinatorMessage, PeerId, PeerMessage
from atoll.sim.engine import Frame
from atoll.sim.world import Fifo, World

RETRY_S = 0.05
DIAL_TIMEOUT_S = 1.0
SILENCE_S = 0.5


class End(Protocol):
    """A process, as the network sees it. `deliver` waits while the process is frozen."""

    id: PeerId
    alive: bool

    def deliver(self, action: Callable[[], None]) -> None: ...
    def expects(self, peer: PeerId) -> bool: ...
    def on_link_up(self, link: Link) -> None: ...
    def on_link_down(self, peer: PeerId, reason: str) -> None: ...
    def on_frame(self, link: Link, sender: PeerId, payload: Frame | State) -> None: ...


class State:
    """A request for shared state, or the answer. `digest` None: a request."""

    def __init__(self, revision: int, digest: str | None) -> None:
        self.revision, self.digest = revision, digest


class Link:
    """One incarnation of a link between two engines."""

    def __init__(self, world: World, one: End, other: End) -> None:
        self.world = world
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
            delay_s = self.world.between(0.001, 0.05)
            self.world.after(delay_s, lambda: other.deliver(lambda: self.close(other.id, "reset")))

    def cut(self, *, mute: set[PeerId]) -> None:
        """The network swallows what the ends in `mute` send from now on. Silence is noticed."""
        self.mute |= mute
        for peer in sorted(mute):
            other = self.other(peer)
            delay_s = SILENCE_S + self.world.between(0.0, 0.3)
            self.world.after(delay_s, lambda o=other: o.deliver(lambda: self.close(o.id, "silent")))  # type: ignore[misc]

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

    def dial(self, caller: End, target: Callable[[], End | None], peer: PeerId) -> None:
        """Keeps trying for a while; gives up with a link that never was."""
        pair = frozenset((caller.id, peer))
        until_s = self.world.now_s + DIAL_TIMEOUT_S

        def attempt() -> None:
            if not caller.alive or not caller.expects(peer):
                return
            old = self.links.get(pair)
            if old is not None and caller.id not in old.finished:
                return
            end = target()
            open_ = pair not in self.blocked and self._reachable(caller.id, peer)
            if end is not None and end.expects(caller.id) and open_:
                if old is not None:
                    old.close(end.id, "reset")
                self.links[pair] = Link(self.world, caller, end)
            elif self.world.now_s < until_s:
                self.world.after(RETRY_S, lambda: caller.deliver(attempt))
            else:
                caller.on_link_down(peer, "unreachable")

        self.world.after(self.world.between(0.0, 0.02), lambda: caller.deliver(attempt))

    def of(self, peer: PeerId) -> list[Link]:
        return [link for pair, link in self.links.items() if peer in pair]


class Stream:
    """A peer's connection to one incarnation of the coordinator."""

    def __init__(
        self,
        world: World,
        number: int,
        *,
        to_coordinator: Callable[[PeerMessage], None],
        to_peer: Callable[[CoordinatorMessage], None],
        lost_at_coordinator: Callable[[], None],
        lost_at_peer: Callable[[], None],
    ) -> None:
        self.number = number
        self.broken = False
        self._world = world
        slow = world.between(0.002, world.random.choice((0.02, 0.05, 0.3)))
        self._up, self._down = Fifo(world, 0.0005, slow), Fifo(world, 0.0005, slow)
        self._to_coordinator, self._to_peer = to_coordinator, to_peer
        self._lost_at_coordinator, self._lost_at_peer = lost_at_coordinator, lost_at_peer

    def say(self, message: PeerMessage) -> None:
        self._up.push(lambda: None if self.broken else self._to_coordinator(message))

    def tell(self, message: CoordinatorMessage) -> None:
        self._down.push(lambda: None if self.broken else self._to_peer(message))

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

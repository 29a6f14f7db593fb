"""A coordinator's machine with scripted peers: say things, read what came back."""

from __future__ import annotations

from collections.abc import Mapping

from atoll.membership.coordinator import CoordinatorMachine
from atoll.membership.events import (
    Close,
    CoordinatorEvent,
    CoordinatorOptions,
    JobEvent,
    Persist,
    Received,
    Send,
    Snapshot,
    StreamLost,
    Tell,
    Tick,
)
from atoll.membership.messages import (
    UNASKED,
    CoordinatorMessage,
    Counters,
    Endpoint,
    Expelled,
    Fence,
    Fenced,
    Heartbeat,
    Install,
    Installed,
    Linked,
    Listening,
    PeerId,
    PeerMessage,
    Ready,
    Register,
)


def peer_id(name: str) -> PeerId:
    return name.encode().ljust(16, b".")


class Bench:
    """Streams are numbered by name: `palm`'s first is 1 if it is the first that speaks."""

    def __init__(self, snapshot: Snapshot | None = None, **options: object) -> None:
        self.options = CoordinatorOptions(job="reef", **options)  # type: ignore[arg-type]
        self.machine = CoordinatorMachine(self.options, secret=bytes(32), snapshot=snapshot)
        self.now_s = 0.0
        self.streams: dict[str, int] = {}
        self.heard: dict[int, list[CoordinatorMessage]] = {}
        self.closed: set[int] = set()
        self.told: list[JobEvent] = []
        self.saved: Snapshot | None = None
        self._next = 1

    def drive(self, event: CoordinatorEvent) -> None:
        for action in self.machine.handle(event, self.now_s):
            match action:
                case Send(stream=stream, message=message):
                    self.heard.setdefault(stream, []).append(message)
                case Close(stream=stream):
                    self.closed.add(stream)
                case Persist(snapshot=snapshot):
                    self.saved = snapshot
                case Tell(event=told):
                    self.told.append(told)

    def say(self, name: str, *messages: PeerMessage) -> None:
        if name not in self.streams:
            self.streams[name] = self._next
            self._next += 1
        for message in messages:
            self.drive(Received(stream=self.streams[name], message=message))

    def say_in_one_breath(self, name: str, first: PeerMessage, *also: PeerMessage) -> None:
        self.drive(Received(stream=self.streams[name], message=first, also=also))

    def last(self, name: str) -> CoordinatorMessage:
        return self.heard[self.streams[name]][-1]

    def heard_by(self, name: str, kind: type) -> list[CoordinatorMessage]:
        return [m for m in self.heard.get(self.streams[name], []) if isinstance(m, kind)]

    def wait(self, seconds: float, *, beating: str = "") -> None:
        """Lets time pass in steps of 50 ms, with heartbeats of those named (a word of letters)."""
        for _ in range(round(seconds / 0.05)):
            self.now_s += 0.05
            for name in beating:
                self.say(name, Heartbeat())
            self.drive(Tick())

    def hang_up(self, name: str) -> None:
        self.drive(StreamLost(stream=self.streams.pop(name)))

    def register(self, name: str, **changes: object) -> None:
        fields: dict[str, object] = {"job": "reef", "peer": peer_id(name), "island": name}
        self.say(name, Register(software_version="1", **{**fields, **changes}))  # type: ignore[arg-type]

    def join(self, name: str, others: str) -> None:
        """Registers, listens, links with the others (both ways) and is ready."""
        self.register(name)
        self.say(name, Listening(endpoints=(Endpoint(host="h", port=1),)))
        self.link(name + others)
        self.say(name, Ready())

    def link(self, names: str) -> None:
        """All of these say that they are linked with one another."""
        for name in names:
            others = frozenset(peer_id(other) for other in names if other != name)
            self.say(name, Linked(peers=others))

    def form(self, names: str) -> None:
        """View 1 of these, installed by all."""
        for position, name in enumerate(names):
            self.join(name, names[:position])
        self.wait(0.3)
        for name in names:
            self.say(name, Installed(epoch=1))
        assert self.members() == names

    def members(self) -> str:
        return "".join(info.island for info in self.machine.view.members)

    def fenced(
        self, name: str, epoch: int, *, unasked: bool = False, **counts: tuple[int, int, int]
    ) -> None:
        """Answers the newest fence. counts: c0=(started, done, committed) for channel 0."""
        fence = self.fence(name)
        assert fence is not None
        attempt = UNASKED if unasked else fence.attempt
        progress: Mapping[int, Counters] = {
            int(channel[1:]): Counters(started=s, done=d, committed=c)
            for channel, (s, d, c) in counts.items()
        }
        self.say(name, Fenced(attempt=attempt, epoch=epoch, progress=progress))

    def fence(self, name: str) -> Fence | None:
        """The newest Fence that a peer has got."""
        messages = self.heard_by(name, Fence)
        return messages[-1] if messages else None  # type: ignore[return-value]

    def expelled(self, name: str) -> Expelled:
        """The last word to a peer that must have been expelled."""
        message = self.heard_by(name, Expelled)[-1]
        assert isinstance(message, Expelled)
        assert self.streams[name] in self.closed
        return message

    def install(self, name: str) -> Install:
        """The newest Install that a peer has got."""
        message = self.heard_by(name, Install)[-1]
        assert isinstance(message, Install)
        return message

    def kinds(self) -> list[str]:
        return [event.kind for event in self.told]

"""Many peers in one process: real machines and real gRPC streams, no data plane.

    scale_peers.py COORDINATOR JOB       started by scale_grpc.py, never by hand

A peer is what `atoll.control.client` makes of a machine and a stream, but all share one loop, and
in place of an engine there is a script: whoever is to be linked is linked, fences are answered and
views installed at once. Commands come as lines on the standard input:

    join NUMBER         one more peer
    lose NUMBER         that one is gone, wherever it is: its connection ends, its links break

and a line on the standard output says when all peers here have installed a view.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from atoll.control.stream import CoordinatorStream
from atoll.membership.messages import Endpoint, PeerId
from atoll.membership.peer import PeerMachine
from atoll.membership.peer_events import (
    AppHolding,
    AppReady,
    Dial,
    Drop,
    Ended,
    EngineFenced,
    EngineInstalled,
    EngineStarted,
    Expect,
    FenceEngine,
    InstallEngine,
    LinkDown,
    LinkUp,
    PeerAction,
    PeerEvent,
    Probe,
    Reconnect,
    Say,
    StartEngine,
    Tick,
)

TICK_S = 0.25
"""A session's own is 0.05 s; so many in one process would be busy with nothing else."""
HERE = (Endpoint(host="192.0.2.1", port=40000),)


def peer_id(number: int) -> PeerId:
    return (number + 1).to_bytes(16, "big")


class LightPeer:
    """Thread: the loop."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        self.machine = PeerMachine(
            peer=peer_id(number),
            island=f"island-{number}",
            job=crowd.job,
            software_version="bench",
            probes=False,
            coordinators=(crowd.coordinator,),
        )
        self.stream = CoordinatorStream(crowd.coordinator, self.drive, lambda: True)
        self._crowd = crowd

    def drive(self, event: PeerEvent) -> None:
        # The script's answers come after what the machine has said, as an engine's would.
        for action in self.machine.handle(event, time.monotonic()):
            self._act(action)

    def _act(self, action: PeerAction) -> None:
        match action:
            case Say(message=message):
                self.stream.say(message)
            case Reconnect(at_s=at_s, coordinator=coordinator):
                self.stream.reopen(at_s, coordinator)
            case StartEngine():
                self._soon(EngineStarted(endpoints=HERE), AppReady())
            case Dial(peer=peer) | Expect(peer=peer):
                if peer not in self._crowd.gone:
                    self._soon(LinkUp(peer=peer))
            case FenceEngine(attempt=attempt):
                epoch = self.machine.view.epoch
                self._soon(EngineFenced(attempt=attempt, epoch=epoch, progress={}))
            case InstallEngine(view=view):
                member = self.machine.peer in view.ids
                self._soon(EngineInstalled(epoch=view.epoch, member=member))
                if view.epoch == 1:
                    self._soon(AppHolding(epoch=1))
                asyncio.get_running_loop().call_soon(self._crowd.look)
            case Ended(error=error):
                raise SystemExit(f"a peer ended: {error}")
            case Drop() | Probe():
                pass

    def _soon(self, *events: PeerEvent) -> None:
        for event in events:
            asyncio.get_running_loop().call_soon(self._answer, event)

    def _answer(self, event: PeerEvent) -> None:
        if isinstance(event, LinkUp) and event.peer in self.machine.linked:
            return
        self.drive(event)


class Crowd:
    """The peers of this process."""

    def __init__(self, coordinator: str, job: str) -> None:
        self.coordinator = coordinator
        self.job = job
        self.gone: set[PeerId] = set()
        self._peers: dict[PeerId, LightPeer] = {}
        self._told = 0

    def join(self, number: int) -> None:
        peer = self._peers[peer_id(number)] = LightPeer(self, number)
        peer.stream.open()

    async def lose(self, number: int) -> None:
        lost = peer_id(number)
        self.gone.add(lost)
        if (peer := self._peers.pop(lost, None)) is not None:
            await peer.stream.close()
        for other in self._peers.values():
            other.drive(LinkDown(peer=lost, reason="reset", message="bench"))

    def look(self) -> None:
        """Says so when all have installed one view."""
        epochs = {peer.machine.view.epoch for peer in self._peers.values()}
        epoch = min(epochs, default=0)
        if len(epochs) == 1 and epoch > self._told:
            self._told = epoch
            print(json.dumps({"installed": epoch, "at_s": time.monotonic()}), flush=True)

    async def tick(self) -> None:
        while True:
            for peer in list(self._peers.values()):
                peer.drive(Tick())
            await asyncio.sleep(TICK_S)


async def main() -> None:
    crowd = Crowd(sys.argv[1], sys.argv[2])
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    ticking = asyncio.create_task(crowd.tick())
    print(json.dumps({"ready": True}), flush=True)
    while line := await reader.readline():
        command, number = line.split()
        if command == b"join":
            crowd.join(int(number))
        else:
            await crowd.lose(int(number))
        crowd.look()
    ticking.cancel()


if __name__ == "__main__":
    asyncio.run(main())

"""What membership costs the coordinator, by the number of peers: joins, losses, heartbeats.

    make bench-scale                              # 10, 100, 1,000, 10,000
    python bench/python/scale.py --peers 100 1000
    make bench-scale SCALE_ARGS="--grpc 500"      # over real connections: scale_grpc.py

The real coordinator's machine, its encoding for the store and for the wire, with scripted peers in
place of streams: no gRPC, no disk. Everything is CPU seconds of this process, the script included.
A join is all that the coordinator does from the newcomer's Register to the last Installed: all
say that they have a link with it, answer a fence, install a view. A loss: from the broken stream
and everybody's suspicion to the last Installed. `longest`: ms that one event held up all others;
it is measured apart, and somewhat too long. `store`: ms of the whole, writing the text to save.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import time
from dataclasses import dataclass, field

from scale_grpc import measure as measure_connections
from scale_grpc import report

from atoll.control.differences import Encoder, Outgoing
from atoll.membership.coordinator import CoordinatorMachine
from atoll.membership.events import (
    CoordinatorEvent,
    CoordinatorOptions,
    Persist,
    Received,
    Send,
    Snapshot,
    StreamLost,
    Tick,
)
from atoll.membership.messages import (
    ChangeKind,
    Counters,
    Departure,
    Endpoint,
    Fence,
    Fenced,
    Heartbeat,
    Holding,
    Install,
    Installed,
    Linked,
    LinkedMore,
    Listening,
    PeerId,
    PeerInfo,
    PeerMessage,
    Ready,
    Register,
    Suspect,
    View,
)
from atoll.membership.starts import Issued, Ring
from atoll.store.encode import to_json

HEARTBEAT_S = CoordinatorOptions(job="bench").heartbeat_s
PROGRESS = {0: Counters(started=7, done=7, committed=7)}


@dataclass
class Cost:
    """Of what a coordinator was asked to do since it was last looked at."""

    longest_s: float = 0.0
    store_s: float = 0.0
    events: int = 0
    sent_bytes: int = 0
    heard: list[tuple[int, object]] = field(default_factory=list)
    spent_s: float = 0.0


class Job:
    """A coordinator whose `count` members, one peer an island, are all linked with one another."""

    def __init__(self, count: int) -> None:
        self.now_s = 0.0
        self.cost = Cost()
        self.began_s = time.process_time()
        self.timed = False  # event by event: that costs more than most events
        self.encoder = Encoder()
        endpoints = (Endpoint(host="192.0.2.1", port=40000),)
        infos = tuple(
            PeerInfo(id=_id(n), island=f"island-{n}", order=n + 1, endpoints=endpoints)
            for n in range(count)
        )
        self.ids = [info.id for info in infos]
        view = View(epoch=1, members=infos)
        snapshot = Snapshot(
            job="bench",
            secret=bytes(32),
            next_order=count + 1,
            next_event=1,
            attempt=1,
            pending=False,
            issued=(Issued(view=view, kind=ChangeKind.ABORT, rings=(Ring(),), base=0),),
            holders=frozenset(self.ids),
            state_epoch=1,
            trained=True,
            complete=False,
            peers=infos,
            islands=(),
        )
        options = CoordinatorOptions(job="bench", measure_settle_s=1e9)
        self.machine = CoordinatorMachine(options, secret=bytes(32), snapshot=snapshot)
        self.outgoing: dict[int, Outgoing] = {}
        self.stream_of: dict[PeerId, int] = {}
        self.drive(Tick())
        everybody = frozenset(self.ids)
        for info in infos:
            self.connect(info.id, info.island, epoch=1)
            self.say(info.id, Linked(peers=everybody))
        self.take()

    def connect(self, peer: PeerId, island: str, *, epoch: int) -> None:
        self.stream_of[peer] = len(self.stream_of) + 1
        self.outgoing[self.stream_of[peer]] = Outgoing(self.encoder)
        register = Register(
            software_version="1", job="bench", peer=peer, island=island, installed_epoch=epoch
        )
        self.say(peer, register)

    def say(self, peer: PeerId, message: PeerMessage) -> None:
        self.drive(Received(stream=self.stream_of[peer], message=message))

    def drive(self, event: CoordinatorEvent) -> None:
        cost = self.cost
        cost.events += 1
        began_s = time.process_time() if self.timed else 0.0
        for action in self.machine.handle(event, self.now_s):
            if isinstance(action, Send):
                data = self.outgoing[action.stream].encode(action.message)
                cost.sent_bytes += len(data)
                if isinstance(action.message, Fence | Install):
                    cost.heard.append((action.stream, action.message))
            elif isinstance(action, Persist):
                before_s = time.process_time()
                to_json(action.snapshot)
                cost.store_s += time.process_time() - before_s
        if self.timed:
            cost.longest_s = max(cost.longest_s, time.process_time() - began_s)

    def take(self) -> Cost:
        cost, self.cost = self.cost, Cost()
        now_s = time.process_time()
        cost.spent_s, self.began_s = now_s - self.began_s, now_s
        return cost

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            self.now_s += 0.05
            self.drive(Tick())

    def change(self) -> None:
        """All answer the fence, then install the view."""
        peer_of = {stream: peer for peer, stream in self.stream_of.items()}
        fences = self._heard(Fence)
        for stream, fence in fences:
            assert isinstance(fence, Fence)
            answer = Fenced(
                attempt=fence.attempt,
                epoch=self.epochs[peer_of[stream]],
                progress=PROGRESS if self.epochs[peer_of[stream]] else {},
            )
            self.say(peer_of[stream], answer)
        installs = self._heard(Install)
        assert installs, "no view was issued"
        for stream, install in installs:
            assert isinstance(install, Install)
            self.epochs[peer_of[stream]] = install.view.epoch
            self.say(peer_of[stream], Installed(epoch=install.view.epoch))

    @property
    def epochs(self) -> dict[PeerId, int]:
        if not hasattr(self, "_epochs"):
            self._epochs = dict.fromkeys(self.ids, 1)
        return self._epochs

    def _heard(self, kind: type) -> list[tuple[int, object]]:
        found = [(s, m) for s, m in self.cost.heard if isinstance(m, kind)]
        self.cost.heard = [(s, m) for s, m in self.cost.heard if not isinstance(m, kind)]
        return found

    # --- what is measured -------------------------------------------------------------------------

    def join(self, number: int) -> Cost:
        peer, members = _id(10**6 + number), list(self.machine.view.ids)
        self.take()
        self.epochs[peer] = 0
        self.connect(peer, f"joiner-{number}", epoch=0)
        self.say(peer, Listening(endpoints=(Endpoint(host="192.0.2.2", port=1),)))
        for member in members:  # link by link
            self.say(member, LinkedMore(added=frozenset((peer,))))
            self.say(peer, LinkedMore(added=frozenset((member,))))
        self.say(peer, Ready())
        self.change()
        self.say(peer, Holding())
        assert peer in self.machine.view.ids
        assert self.machine.idle
        return self.take()

    def lose(self) -> Cost:
        """Each of the others sees its link break and says so."""
        members = list(self.machine.view.ids)
        victim = members[len(members) // 2]
        self.take()
        self.drive(StreamLost(stream=self.stream_of[victim]))
        for member in members:
            if member != victim:
                self.say(member, Suspect(peer=victim, reason=Departure.CRASHED))
                self.say(member, LinkedMore(removed=frozenset((victim,))))
        self.change()
        assert victim not in self.machine.view.ids
        assert self.machine.idle
        return self.take()

    def heartbeats(self) -> float:
        """CPU seconds of one from everybody, and of the ticks of the seconds in between."""
        members = list(self.machine.view.ids)
        self.take()
        steps = round(HEARTBEAT_S / 0.05)
        each = -(-len(members) // steps)
        for step in range(steps):
            self.now_s += 0.05
            self.drive(Tick())
            for member in members[step * each : (step + 1) * each]:
                self.say(member, Heartbeat())
        return self.take().spent_s


def _id(number: int) -> PeerId:
    return number.to_bytes(16, "big")


def measure(count: int, repeats: int) -> dict[str, float]:
    job = Job(count)
    job.join(0)  # from here on everybody knows a list
    job.lose()
    gc.collect()
    beats = [job.heartbeats() for _ in range(max(3, repeats))]
    costs = {
        "join": [job.join(number) for number in range(1, repeats + 1)],
        "loss": [job.lose() for _ in range(repeats)],
    }
    job.timed = True
    longest = {"join": job.join(repeats + 1).longest_s, "loss": job.lose().longest_s}
    row: dict[str, float] = {"peers": count}
    for name, several in costs.items():
        for part in ("spent_s", "store_s", "events", "sent_bytes"):
            row[f"{name}_{part}"] = statistics.median(getattr(cost, part) for cost in several)
        row[f"{name}_longest_s"] = longest[name]
    beat_s = statistics.median(beats)
    row["heartbeat_s"] = beat_s / count
    row["heartbeats_share"] = beat_s / HEARTBEAT_S
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peers", type=int, nargs="+", default=[10, 100, 1000, 10000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="where to write all numbers")
    parser.add_argument("--grpc", type=int, metavar="PEERS", help="instead: real connections")
    options = parser.parse_args()
    if options.grpc is not None:
        report(asyncio.run(measure_connections(options.grpc, repeats=options.repeats)))
        return
    print(f"{'peers':>6} | {'join':^43} | {'loss':^43} | {'heartbeats':^18}")
    columns = f"{'CPU ms':>8} {'us/event':>8} {'longest':>8} {'store':>7} {'MB sent':>8}"
    print(f"{'':6} | {columns} | {columns} | {'us each':>7}  of a core")
    rows = []
    for count in options.peers:
        row = measure(count, options.repeats)
        rows.append(row)
        cells = [f"{count:6}"]
        for name in ("join", "loss"):
            spent_s, events = row[f"{name}_spent_s"], row[f"{name}_events"]
            cells.append(
                f"{1e3 * spent_s:8.1f} {1e6 * spent_s / events:8.1f} "
                f"{1e3 * row[f'{name}_longest_s']:8.1f} {1e3 * row[f'{name}_store_s']:7.1f} "
                f"{row[f'{name}_sent_bytes'] / 1e6:8.2f}"
            )
        cells.append(f"{1e6 * row['heartbeat_s']:7.1f}  {100 * row['heartbeats_share']:7.2f} %")
        print(" | ".join(cells), flush=True)
    if options.json:
        with open(options.json, "w") as out:
            json.dump(rows, out, indent=1)


if __name__ == "__main__":
    main()

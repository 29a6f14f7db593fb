"""A coordinator's machine with scripted islands of two shards."""

from __future__ import annotations

from bench import Bench, peer_id

from atoll.membership.messages import (
    Departure,
    Endpoint,
    Heartbeat,
    Installed,
    Linked,
    Listening,
    Ready,
    Suspect,
)


class Shards(Bench):
    """Peers are called by island and shard: `a0` and `a1` are the island `a`."""

    def come(self, name: str, *, shards: int = 2, others: str = "") -> None:
        """Registers, listens, links with its ring among `others` (both ways), is ready."""
        self.register(name, island=name[0], shard=int(name[1]), shards=shards)
        self.say(name, Listening(endpoints=(Endpoint(host="h", port=1),)))
        ring = [f"{island}{name[1]}" for island in others] + [name]
        for one in ring:
            linked = frozenset(peer_id(other) for other in ring if other != one)
            self.say(one, Linked(peers=linked))
        self.say(name, Ready())

    def island(self, name: str, *, others: str = "") -> None:
        self.come(f"{name}0", others=others)
        self.come(f"{name}1", others=others)

    def form_islands(self, names: str) -> None:
        for position, name in enumerate(names):
            self.island(name, others=names[:position])
        self.beat(0.3, self.peers(names))
        for peer in self.peers(names):
            self.say(peer, Installed(epoch=1))
        assert self.machine.view.islands == tuple(names)

    @staticmethod
    def peers(names: str) -> list[str]:
        return [f"{island}{shard}" for island in names for shard in "01"]

    def beat(self, seconds: float, peers: list[str]) -> None:
        for _ in range(round(seconds / 0.05)):
            for peer in peers:
                self.say(peer, Heartbeat())
            self.wait(0.05)

    def lose(self, name: str, witness: str) -> None:
        self.say(witness, Suspect(peer=peer_id(name), reason=Departure.CRASHED, certain=True))

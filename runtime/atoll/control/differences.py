"""Lists of peers on a stream, told by what is different from the last one.

The machines speak of whole lists. That each of 10,000 peers is sent all 10,000 of them whenever one
comes is avoided here: a stream keeps the order of what is said on it and loses nothing before it
ends, so either side knows the list that the other one knew last. Most peers have heard the same
before, so what is the same for them is encoded once and sent to all.

Thread: none of its own. One `Encoder` serves all streams of a server.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from atoll.control import convert, fields
from atoll.membership import messages as m
from atoll.pb import control_pb2 as pb

KEPT = 16
"""Encoded messages that are kept: those of a change of view, for a few kinds of receivers."""


class Encoder:
    """Messages that go to many, encoded once. They are told apart by identity, so a message that is
    sent to several must be the same object."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, int], tuple[object, object, bytes]] = OrderedDict()

    def encode(self, message: m.CoordinatorMessage) -> bytes:
        """The bytes of a message as it is."""
        if not isinstance(message, m.Peers | m.Install | m.Fence | m.Measure):
            return convert.coordinator_message_to_pb(message).SerializeToString()
        return self._once(None, message, lambda: convert.coordinator_message_to_pb(message))

    def peers(self, before: m.Peers, now: m.Peers) -> bytes:
        """The bytes of a list for somebody who knows another one."""

        def write() -> pb.CoordinatorMessage:
            change = _change(before.peers, now.peers, before.holders, now.holders)
            if _by_order(_apply(before.peers, change)) != now.peers:
                return convert.coordinator_message_to_pb(now)
            change.relayed.extend(map(fields.pb_relayed, now.relayed))
            return pb.CoordinatorMessage(peers_change=change)

        return self._once(before, now, write)

    def install(self, before: m.Install, now: m.Install) -> bytes:
        """The bytes of a view for somebody who knows another one."""

        def write() -> pb.CoordinatorMessage:
            old, new = before.view.members, now.view.members
            change = _change(old, new, before.holders, now.holders)
            if _by_rank(_apply(old, change)) != new:
                return convert.coordinator_message_to_pb(now)
            starts = [
                pb.ChannelStart(channel=channel, sequence=sequence)
                for channel, sequence in sorted(now.starts.items())
            ]
            install = pb.InstallChange(
                epoch=now.view.epoch,
                members=change,
                kind=fields.KINDS[now.kind],
                starts=starts,
                topology=now.topology,
            )
            return pb.CoordinatorMessage(install_change=install)

        return self._once(before, now, write)

    def _once(
        self, before: object, now: object, write: Callable[[], pb.CoordinatorMessage]
    ) -> bytes:
        key = (id(before), id(now))  # both are kept with it, so no other object has their ids
        known = self._kept.get(key)
        if known is None:
            known = (before, now, write().SerializeToString())
            self._kept[key] = known
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return known[2]


class Outgoing:
    """What a stream's receiver was told last."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._peers: m.Peers | None = None
        self._install: m.Install | None = None

    def encode(self, message: m.CoordinatorMessage) -> bytes:
        """The bytes of the next message on this stream."""
        match message:
            case m.Peers():
                known, self._peers = self._peers, message
                if known is not None:
                    return self._encoder.peers(known, message)
            case m.Install():
                installed, self._install = self._install, message
                if installed is not None:
                    return self._encoder.install(installed, message)
        return self._encoder.encode(message)


class Incoming:
    """What was heard last on a stream."""

    def __init__(self) -> None:
        self._peers: m.Peers | None = None
        self._install: m.Install | None = None

    def decode(self, message: pb.CoordinatorMessage) -> m.CoordinatorMessage:
        """The next message on the stream. Raises MalformedMessage."""
        match message.WhichOneof("body"):
            case "peers_change":
                return self._take(self._changed_peers(message.peers_change))
            case "install_change":
                return self._take(self._changed_install(message.install_change))
        return self._take(convert.coordinator_message_from_pb(message))

    def _take(self, message: m.CoordinatorMessage) -> m.CoordinatorMessage:
        if isinstance(message, m.Peers):
            self._peers = message
        elif isinstance(message, m.Install):
            self._install = message
        return message

    def _changed_peers(self, change: pb.PeersChange) -> m.Peers:
        known = self._peers
        if known is None:
            raise fields.MalformedMessage("a change of a list of peers that was never sent")
        peers = _by_order(_apply(known.peers, change))
        return m.Peers(
            peers=peers,
            holders=_holders(known.holders, change),
            relayed=fields.relayed(change.relayed),
        )

    def _changed_install(self, value: pb.InstallChange) -> m.Install:
        known = self._install
        if known is None:
            raise fields.MalformedMessage("a change of a view that was never sent")
        members = _by_rank(_apply(known.view.members, value.members))
        return m.Install(
            view=m.View(epoch=value.epoch, members=members),
            kind=fields.kind(value.kind),
            starts=convert.starts(value.starts),
            holders=_holders(known.holders, value.members),
            topology=convert.topology(value.topology, members),
        )


def _change(
    before: Sequence[m.PeerInfo],
    now: Sequence[m.PeerInfo],
    held: frozenset[m.PeerId],
    hold: frozenset[m.PeerId],
) -> pb.PeersChange:
    known = {info.id: info for info in before}
    left = known.keys() - {info.id for info in now}
    # Most are the same objects; to compare the others takes much longer.
    new = [i for i in now if (was := known.get(i.id)) is not i and was != i]
    return pb.PeersChange(
        gone=sorted(left),
        peers=[fields.pb_info(info) for info in new],
        holders_gone=sorted(held - hold),
        holders=sorted(hold - held),
    )


def _apply(before: Iterable[m.PeerInfo], change: pb.PeersChange) -> list[m.PeerInfo]:
    peers = {info.id: info for info in before}
    for peer in fields.peer_ids(change.gone):
        peers.pop(peer, None)
    peers.update({info.id: info for info in fields.infos(change.peers)})
    return list(peers.values())


def _holders(before: frozenset[m.PeerId], change: pb.PeersChange) -> frozenset[m.PeerId]:
    return (before - fields.peer_ids(change.holders_gone)) | fields.peer_ids(change.holders)


def _by_order(peers: Iterable[m.PeerInfo]) -> tuple[m.PeerInfo, ...]:
    return tuple(sorted(peers, key=lambda info: info.order))


def _by_rank(peers: Iterable[m.PeerInfo]) -> tuple[m.PeerInfo, ...]:
    """An island is as old as its youngest peer."""
    ages: dict[str, int] = {}
    listed = list(peers)
    for info in listed:
        ages[info.island] = max(ages.get(info.island, 0), info.order)
    return tuple(sorted(listed, key=lambda info: (ages[info.island], info.shard)))

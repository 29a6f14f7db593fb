"""Snapshots as JSON text and back. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from atoll.membership.events import End, Snapshot
from atoll.membership.messages import (
    ChangeKind,
    Departure,
    Endpoint,
    PeerInfo,
    Relayed,
    View,
)
from atoll.membership.starts import Issued, Ring


def to_json(snapshot: Snapshot) -> str:
    """One line; `from_json` gives the same snapshot again."""
    small = json.dumps(
        {
            "job": snapshot.job,
            "secret": snapshot.secret.hex(),
            "next_order": snapshot.next_order,
            "next_event": snapshot.next_event,
            "attempt": snapshot.attempt,
            "pending": snapshot.pending,
            "state_epoch": snapshot.state_epoch,
            "trained": snapshot.trained,
            "complete": snapshot.complete,
            "islands": list(snapshot.islands),
            "shards": snapshot.shards,
            "ends": [_end(end) for end in snapshot.ends],
            "held_back": sorted(peer.hex() for peer in snapshot.held_back),
            "used_tokens": {token: list(use) for token, use in snapshot.used_tokens.items()},
            "revoked": dict(snapshot.revoked),
            "relayed": [[r.one.hex(), r.other.hex(), r.relay.hex()] for r in snapshot.relayed],
        }
    )
    # What grows with the job is put together from texts that were written before.
    issued = ", ".join(_ISSUED.text(entry) for entry in snapshot.issued)
    peers = ", ".join(map(_INFOS.text, snapshot.peers))
    holders = _HOLDERS.text(snapshot.holders)
    return f'{small[:-1]}, "issued": [{issued}], "holders": {holders}, "peers": [{peers}]}}'


class _Texts:
    """Texts of values that never change, found again by identity."""

    def __init__(self, write: Callable[[Any], str], most: int) -> None:
        self._write = write
        self._most = most
        self._known: dict[int, tuple[object, str]] = {}

    def text(self, value: object) -> str:
        known = self._known.get(id(value))
        if known is None or known[0] is not value:
            if len(self._known) >= self._most:
                self._known.clear()
            known = self._known[id(value)] = (value, self._write(value))
        return known[1]


def from_json(text: str) -> Snapshot:
    """Raises ValueError, KeyError or TypeError for anything that `to_json` did not write."""
    data = json.loads(text)
    issued = tuple(_issued_back(entry) for entry in data["issued"])
    if not issued:
        raise ValueError("no view")
    return Snapshot(
        job=str(data["job"]),
        secret=bytes.fromhex(data["secret"]),
        next_order=int(data["next_order"]),
        next_event=int(data.get("next_event", 1)),
        attempt=int(data["attempt"]),
        pending=bool(data["pending"]),
        issued=issued,
        holders=frozenset(bytes.fromhex(peer) for peer in data["holders"]),
        state_epoch=int(data["state_epoch"]),
        trained=bool(data.get("trained", False)),  # a store of an older version does not know
        complete=bool(data["complete"]),
        peers=tuple(_info_back(info) for info in data["peers"]),
        islands=tuple(str(name) for name in data.get("islands", ())),
        shards=int(data.get("shards", 1)),
        ends=tuple(_end_back(end) for end in data.get("ends", ())),
        held_back=frozenset(bytes.fromhex(peer) for peer in data.get("held_back", ())),
        used_tokens={
            str(token): (float(expires_s), str(key))
            for token, (expires_s, key) in data.get("used_tokens", {}).items()
        },
        revoked={str(name): float(at_s) for name, at_s in data.get("revoked", {}).items()},
        relayed=tuple(_relayed_back(*entry) for entry in data.get("relayed", ())),
    )


def _relayed_back(one: str, other: str, relay: str) -> Relayed:
    ids = map(bytes.fromhex, (one, other, relay))
    return Relayed(**dict(zip(("one", "other", "relay"), ids, strict=True)))


def _info(info: PeerInfo) -> dict[str, object]:
    return {
        "id": info.id.hex(),
        "island": info.island,
        "order": info.order,
        "shard": info.shard,
        "endpoints": [[endpoint.host, endpoint.port] for endpoint in info.endpoints],
    }


def _info_back(data: Mapping[str, Any]) -> PeerInfo:
    return PeerInfo(
        id=bytes.fromhex(data["id"]),
        island=str(data["island"]),
        order=int(data["order"]),
        endpoints=tuple(Endpoint(host=str(h), port=int(p)) for h, p in data["endpoints"]),
        shard=int(data.get("shard", 0)),
    )


def _end(end: End) -> dict[str, object]:
    return {"reason": end.reason.value, "message": end.message, "shard": _info(end.shard)}


def _end_back(data: Mapping[str, Any]) -> End:
    return End(
        reason=Departure(data["reason"]),
        message=str(data["message"]),
        shard=_info_back(data["shard"]),
    )


def _issued(entry: Issued) -> str:
    small = json.dumps(
        {
            "epoch": entry.view.epoch,
            "kind": entry.kind.value,
            "rings": [
                {"starts": sorted(ring.starts.items()), "topology": ring.topology.hex()}
                for ring in entry.rings
            ],
            "base": entry.base,
        }
    )
    members = ", ".join(map(_INFOS.text, entry.view.members))
    return f'{small[:-1]}, "members": [{members}]}}'


_INFOS = _Texts(lambda info: json.dumps(_info(info)), 1 << 16)
_ISSUED = _Texts(_issued, 8)
_HOLDERS = _Texts(lambda holders: json.dumps(sorted(peer.hex() for peer in holders)), 8)


def _issued_back(data: Mapping[str, Any]) -> Issued:
    members = tuple(_info_back(info) for info in data["members"])
    rings = data.get("rings", [data])  # in a store of an older version the view is its only ring
    return Issued(
        view=View(epoch=int(data["epoch"]), members=members),
        kind=ChangeKind(data["kind"]),
        rings=tuple(_ring_back(ring) for ring in rings),
        base=int(data["base"]),
    )


def _ring_back(data: Mapping[str, Any]) -> Ring:
    return Ring(
        starts={int(channel): int(start) for channel, start in data["starts"]},
        topology=bytes.fromhex(data.get("topology", "")),  # a store of an older version has none
    )

"""Snapshots as JSON text and back. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from atoll.membership.events import Snapshot
from atoll.membership.messages import ChangeKind, Endpoint, PeerInfo, View
from atoll.membership.starts import Issued


def to_json(snapshot: Snapshot) -> str:
    """One line; `from_json` gives the same snapshot again."""
    return json.dumps(
        {
            "job": snapshot.job,
            "secret": snapshot.secret.hex(),
            "next_order": snapshot.next_order,
            "attempt": snapshot.attempt,
            "pending": snapshot.pending,
            "issued": [_issued(entry) for entry in snapshot.issued],
            "holders": sorted(peer.hex() for peer in snapshot.holders),
            "state_epoch": snapshot.state_epoch,
            "complete": snapshot.complete,
            "peers": [_info(info) for info in snapshot.peers],
        }
    )


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
        attempt=int(data["attempt"]),
        pending=bool(data["pending"]),
        issued=issued,
        holders=frozenset(bytes.fromhex(peer) for peer in data["holders"]),
        state_epoch=int(data["state_epoch"]),
        complete=bool(data["complete"]),
        peers=tuple(_info_back(info) for info in data["peers"]),
    )


def _info(info: PeerInfo) -> dict[str, object]:
    return {
        "id": info.id.hex(),
        "island": info.island,
        "order": info.order,
        "endpoints": [[endpoint.host, endpoint.port] for endpoint in info.endpoints],
    }


def _info_back(data: Mapping[str, Any]) -> PeerInfo:
    return PeerInfo(
        id=bytes.fromhex(data["id"]),
        island=str(data["island"]),
        order=int(data["order"]),
        endpoints=tuple(Endpoint(host=str(h), port=int(p)) for h, p in data["endpoints"]),
    )


def _issued(entry: Issued) -> dict[str, object]:
    return {
        "epoch": entry.view.epoch,
        "members": [_info(info) for info in entry.view.members],
        "kind": entry.kind.value,
        "starts": sorted(entry.starts.items()),
        "base": entry.base,
    }


def _issued_back(data: Mapping[str, Any]) -> Issued:
    members = tuple(_info_back(info) for info in data["members"])
    return Issued(
        view=View(epoch=int(data["epoch"]), members=members),
        kind=ChangeKind(data["kind"]),
        starts={int(channel): int(start) for channel, start in data["starts"]},
        base=int(data["base"]),
    )

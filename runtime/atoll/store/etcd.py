"""A store in etcd, for several coordinators of one job: one leads, the others stand by.

    PREFIX/leader   who leads; bound to a lease, so that it goes with whoever wrote it
    PREFIX/state    the last snapshot

Leadership is the key `leader`, and its fencing token the revision of etcd that made it. Every write
is a transaction on the condition that this very key is still there and that the snapshot is the one
that was read or written last; a leader that was stopped for longer than its lease, or whose write
was under way when it gave up, writes nothing any more. Besides, a leader that has not heard from
etcd for as long as its lease lasts stops deciding by its own clock.

Thread: the coordinator's alone, and its loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from atoll.errors import ConfigError
from atoll.membership.events import Snapshot
from atoll.pb import etcd_pb2 as pb
from atoll.store import Deposed, StoreUnavailable
from atoll.store.encode import from_json, to_json
from atoll.store.etcd_client import EtcdClient, EtcdError

LEASE_S = 2
"""The shortest that etcd gives with its own default settings. A standby leads at most this, half a
second of etcd's and POLL_S after the leader's last sign of life."""
POLL_S = 0.2
CALL_S = 3.0


@dataclass(slots=True)
class _Held:
    """The leadership. `revision`: of etcd, when it began; `state`: of the snapshot, 0 for none."""

    lease: int
    revision: int
    state: int
    until_s: float
    lost: str = ""


class EtcdStore:
    """Raises nothing but what `Store` says."""

    shared = True

    def __init__(
        self,
        endpoints: Sequence[str],
        prefix: str,
        *,
        lease_s: int = LEASE_S,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """`endpoints`: members of one etcd, HOST:PORT each. `prefix`: of the job's two keys.
        `credentials`: None is no TLS."""
        scheme = "etcd" if credentials is None else "etcds"
        self.where = f"{scheme}://{','.join(endpoints)}/{prefix}"
        self._client = EtcdClient(endpoints, credentials)
        self._leader_key = f"{prefix}/leader".encode()
        self._state_key = f"{prefix}/state".encode()
        self._lease_s = lease_s
        self._held: _Held | None = None
        self._lease = 0  # granted, and perhaps not revoked yet
        self._leader = ""
        self._keeper: asyncio.Task[None] | None = None

    async def lead(self, address: str) -> Snapshot | None:
        await self.resign()
        try:
            while True:
                other = await self._client.range(self._leader_key, timeout_s=CALL_S)
                if other is None:
                    snapshot = await self._campaign(address)
                    if self._held is not None:
                        return snapshot
                else:
                    self._leader = _address(other.value)
                await asyncio.sleep(POLL_S)
        except EtcdError as error:
            self._leader = ""
            raise StoreUnavailable(f"etcd does not answer ({error})") from error

    def lost(self) -> str:
        held = self._held
        if held is None:
            return "this coordinator does not lead"
        late_s = time.monotonic() - held.until_s
        if late_s >= 0 and not held.lost:
            # For good, though etcd may be slower to forget: the lease is not counted on any more.
            held.lost = f"the lease was not renewed in time, it ran out {late_s:.1f} s ago"
        return held.lost

    def leader(self) -> str:
        return self._leader

    async def save(self, snapshot: Snapshot) -> None:
        held = self._held
        if held is None or self.lost():
            raise Deposed(self.lost())
        value = to_json(snapshot).encode()
        left_s = held.until_s - time.monotonic()
        try:
            reply = await self._client.txn(self._write(held, value), timeout_s=left_s)
        except EtcdError as error:
            raise StoreUnavailable(f"etcd did not take a write ({error})") from error
        if reply.succeeded:
            held.state = reply.header.revision
            return
        leader, state = (next(iter(r.response_range.kvs), None) for r in reply.responses)
        self._compare(held, leader)
        if state is None or state.value != value:
            held.lost = "the snapshot in etcd was changed by somebody else"
            raise Deposed(held.lost)
        # A member of etcd had taken it and did not live to say so; another one was asked again.
        held.state = state.mod_revision

    async def confirm(self) -> None:
        held = self._held
        if held is None or self.lost():
            raise Deposed(self.lost())
        left_s = held.until_s - time.monotonic()
        try:
            leader = await self._client.range(self._leader_key, timeout_s=left_s)
        except EtcdError as error:
            raise StoreUnavailable(f"etcd does not answer ({error})") from error
        self._compare(held, leader)

    def _compare(self, held: _Held, leader: pb.KeyValue | None) -> None:
        if leader is None or leader.create_revision != held.revision:
            self._leader = "" if leader is None else _address(leader.value)
            held.lost = f"{self._leader or 'nobody'} leads now"
            raise Deposed(held.lost)

    async def resign(self) -> None:
        held, self._held = self._held, None
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        if held is not None:
            self._leader = ""
        lease, self._lease = self._lease, 0
        if lease:
            with contextlib.suppress(EtcdError):
                await self._client.revoke(lease, timeout_s=CALL_S / 3)

    async def close(self) -> None:
        await self.resign()
        await self._client.close()

    # --- becoming the leader ----------------------------------------------------------------------

    async def _campaign(self, address: str) -> Snapshot | None:
        """Takes the leadership if nobody is quicker."""
        asked_s = time.monotonic()
        self._lease, ttl_s = await self._client.grant(self._lease_s, timeout_s=CALL_S)
        request = pb.TxnRequest(
            compare=[_created(self._leader_key, 0)],
            success=[
                _put(self._leader_key, json.dumps({"address": address}).encode(), self._lease),
                _get(self._state_key),
            ],
            failure=[_get(self._leader_key)],
        )
        reply = await self._client.txn(request, timeout_s=CALL_S)
        if not reply.succeeded:
            # Another one was quicker; or etcd had taken our own, and the lease's end is its end.
            kvs = reply.responses[0].response_range.kvs
            self._leader = _address(kvs[0].value) if kvs else ""
            await self.resign()
            return None
        kvs = reply.responses[1].response_range.kvs
        self._leader = address
        self._held = _Held(
            lease=self._lease,
            revision=reply.header.revision,
            state=kvs[0].mod_revision if kvs else 0,
            until_s=asked_s + ttl_s,
        )
        self._keeper = asyncio.create_task(self._keep(self._held, ttl_s), name="atoll-etcd-lease")
        try:
            return from_json(kvs[0].value.decode()) if kvs else None
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self.where}: the state is corrupt ({type(error).__name__}: {error}); "
                "restore it, or name another prefix"
            ) from error

    async def _keep(self, held: _Held, ttl_s: float) -> None:
        """Renews the lease until it is lost."""
        while not held.lost:
            await asyncio.sleep(ttl_s / 4)
            asked_s = time.monotonic()
            try:
                left_s = max(0.0, held.until_s - asked_s)
                given_s = await self._client.keep_alive(held.lease, timeout_s=left_s)
            except EtcdError as error:
                held.lost = held.lost or f"etcd did not renew the lease ({error})"
                return
            if given_s > 0:
                held.until_s = asked_s + given_s
            else:
                held.lost = "the lease ran out before it was renewed"

    def _write(self, held: _Held, value: bytes) -> pb.TxnRequest:
        return pb.TxnRequest(
            compare=[
                _created(self._leader_key, held.revision),
                pb.Compare(target=pb.Compare.MOD, key=self._state_key, mod_revision=held.state),
            ],
            success=[_put(self._state_key, value)],
            failure=[_get(self._leader_key), _get(self._state_key)],
        )


def _created(key: bytes, revision: int) -> pb.Compare:
    """That the key was made at this revision, and not again since; 0: that there is none."""
    return pb.Compare(target=pb.Compare.CREATE, key=key, create_revision=revision)


def _put(key: bytes, value: bytes, lease: int = 0) -> pb.RequestOp:
    return pb.RequestOp(request_put=pb.PutRequest(key=key, value=value, lease=lease))


def _get(key: bytes) -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=key))


def _address(value: bytes) -> str:
    try:
        return str(json.loads(value)["address"])
    except (ValueError, KeyError, TypeError):
        return ""

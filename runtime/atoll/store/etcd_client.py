"""etcd's v3 API, as much of it as the store needs, over the gRPC that is there anyway.

Thread: the loop's that it is used on. Every call has an end: members that do not answer are asked
one after the other until a deadline, and a call that may have been applied though it failed says so
by raising.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import grpc.aio

from atoll.pb import etcd_pb2 as pb

TRY_S = 0.5
"""For one member of etcd to answer before another is asked: a quarter of the shortest lease."""
PAUSE_S = 0.05
OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    # An etcd that comes back is noticed at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 2_000),
)
_ELSEWHERE = {
    grpc.StatusCode.UNAVAILABLE,  # also: no leader at the moment, a change of leaders
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNKNOWN,  # a member that is being stopped
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.CANCELLED,
}


class EtcdError(Exception):
    """etcd did not answer in time, or refused; `answered`: it refused."""

    def __init__(self, message: str, *, answered: bool) -> None:
        super().__init__(message)
        self.answered = answered


class EtcdClient:
    """One of several members is used until it fails."""

    def __init__(
        self, endpoints: Sequence[str], credentials: grpc.ChannelCredentials | None = None
    ) -> None:
        """`endpoints`: HOST:PORT each; `credentials`: None is no TLS. Connects when it is used."""
        self._endpoints = tuple(endpoints)
        self._credentials = credentials
        self._channels: dict[str, Any] = {}
        self._current = 0

    async def range(self, key: bytes, *, timeout_s: float) -> pb.KeyValue | None:
        """The key's newest value, as a majority of etcd knows it, or None."""
        reply = await self._call(
            "KV/Range", pb.RangeRequest(key=key), pb.RangeResponse, timeout_s=timeout_s
        )
        return reply.kvs[0] if reply.kvs else None

    async def txn(self, request: pb.TxnRequest, *, timeout_s: float) -> pb.TxnResponse:
        """Applied once, more often or not at all when it raises or was asked again on the way: its
        own conditions have to make that harmless."""
        reply: pb.TxnResponse = await self._call(
            "KV/Txn", request, pb.TxnResponse, timeout_s=timeout_s
        )
        return reply

    async def grant(self, ttl_s: int, *, timeout_s: float) -> tuple[int, float]:
        """A new lease: its id, and for how many seconds it was given."""
        reply = await self._call(
            "Lease/LeaseGrant",
            pb.LeaseGrantRequest(TTL=ttl_s),
            pb.LeaseGrantResponse,
            timeout_s=timeout_s,
        )
        if reply.error:
            raise EtcdError(reply.error, answered=True)
        return reply.ID, float(reply.TTL)

    async def revoke(self, lease: int, *, timeout_s: float) -> None:
        """Ends a lease; its keys go at once."""
        await self._call(
            "Lease/LeaseRevoke",
            pb.LeaseRevokeRequest(ID=lease),
            pb.LeaseRevokeResponse,
            timeout_s=timeout_s,
        )

    async def keep_alive(self, lease: int, *, timeout_s: float) -> float:
        """For how many seconds from now on the lease holds; 0: it is gone."""
        request = pb.LeaseKeepAliveRequest(ID=lease)
        reply = await self._call(
            "Lease/LeaseKeepAlive",
            request,
            pb.LeaseKeepAliveResponse,
            timeout_s=timeout_s,
            stream=True,
        )
        return float(max(0, reply.TTL))

    async def close(self) -> None:
        """Idempotent."""
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close(None)

    # --- one call, at one member after the other --------------------------------------------------

    async def _call(
        self, method: str, request: Any, reply: Any, *, timeout_s: float, stream: bool = False
    ) -> Any:
        end_s = time.monotonic() + timeout_s
        problem = "no time left"
        while (left_s := end_s - time.monotonic()) > 0:
            endpoint = self._endpoints[self._current % len(self._endpoints)]
            one = self._stream if stream else self._unary
            try:
                return await one(endpoint, method, request, reply, min(left_s, TRY_S))
            except grpc.aio.AioRpcError as error:
                problem = f"{endpoint}: {error.code().name.lower()}: {error.details()}"
                if error.code() not in _ELSEWHERE:
                    raise EtcdError(problem, answered=True) from error
            except TimeoutError:
                problem = f"{endpoint}: no answer"
            self._current += 1
            await asyncio.sleep(min(PAUSE_S, max(0.0, end_s - time.monotonic())))
        raise EtcdError(problem, answered=False)

    def _channel(self, endpoint: str) -> Any:
        if endpoint not in self._channels:
            if self._credentials is None:
                channel = grpc.aio.insecure_channel(endpoint, OPTIONS)
            else:
                channel = grpc.aio.secure_channel(endpoint, self._credentials, OPTIONS)
            self._channels[endpoint] = channel
        return self._channels[endpoint]

    async def _unary(
        self, endpoint: str, method: str, request: Any, reply: Any, timeout_s: float
    ) -> Any:
        call = self._channel(endpoint).unary_unary(
            f"/etcdserverpb.{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=reply.FromString,
        )
        return await call(request, timeout=timeout_s)

    async def _stream(
        self, endpoint: str, method: str, request: Any, reply: Any, timeout_s: float
    ) -> Any:
        """One question on a stream of its own, which ends with the answer."""
        call = self._channel(endpoint).stream_stream(
            f"/etcdserverpb.{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=reply.FromString,
        )

        async def questions() -> AsyncIterator[Any]:
            yield request

        stream = call(questions(), timeout=timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                answer = await stream.read()
            if not isinstance(answer, reply):
                raise TimeoutError
            return answer
        finally:
            stream.cancel()

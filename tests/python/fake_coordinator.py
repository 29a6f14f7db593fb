"""A coordinator that says what a test tells it to. Islands of these tests never speak with it."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc

from atoll.pb import control_pb2 as pb
from atoll.pb import control_pb2_grpc


class FakeCoordinator(control_pb2_grpc.CoordinatorServicer):
    """Answers Status with `status`, streams what `say` was given, remembers Stop in `stops`."""

    def __init__(self, job: str = "lagoon") -> None:
        self.status = pb.StatusReply(job=job, min_islands=1)
        self.stops: queue.Queue[str] = queue.Queue()
        self._events: list[pb.JobEvent] = []
        self._news: queue.Queue[None] = queue.Queue()
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
        control_pb2_grpc.add_CoordinatorServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def say(self, **fields: Any) -> None:
        number = len(self._events) + 1
        self._events.append(pb.JobEvent(number=number, time_s=time.time(), **fields))
        self._news.put(None)

    def close(self) -> None:
        self._news.put(None)
        self._server.stop(0).wait()

    def Status(self, request: Any, context: Any) -> pb.StatusReply:
        return self.status

    def Watch(self, request: Any, context: Any) -> Iterator[pb.JobEvent]:
        sent = request.after
        while context.is_active():
            while sent < len(self._events):
                yield self._events[sent]
                sent += 1
            try:
                self._news.get(timeout=0.2)
            except queue.Empty:
                continue

    def Stop(self, request: Any, context: Any) -> pb.StopReply:
        self.stops.put(request.message)
        return pb.StopReply()

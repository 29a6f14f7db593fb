"""Fetching the chunks of a state from several donors at once, as a pure state machine.

Every donor has up to `WINDOW` requests under way. A donor that fails, refuses or serves a chunk
whose digest is wrong is not asked again; what it owed goes back to the queue. The shell does what
`take` says and reports each end with `arrived` or `failed`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from atoll.state.manifest import Manifest, chunks

WINDOW = 2
"""Requests under way at one donor: the next is there when the first has arrived."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Part of tensor buffer `tensor` (0 is the first tensor, published as buffer 1)."""

    tensor: int
    offset: int
    length: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    donor: bytes
    chunk: Chunk


class ChunkFetch:
    """Done when `complete`; stuck, for want of donors, when `starved`."""

    def __init__(self, manifest: Manifest, donors: Iterable[bytes]) -> None:
        self._waiting = deque(
            Chunk(tensor=index, offset=offset, length=length, digest=digest)
            for index, entry in enumerate(manifest.tensors)
            for (offset, length), digest in zip(chunks(entry.nbytes), entry.digests, strict=True)
        )
        self._load = dict.fromkeys(sorted(donors), 0)
        self._under_way: set[Request] = set()
        self.bytes_from: dict[bytes, int] = dict.fromkeys(self._load, 0)
        self.corrupt = 0

    @property
    def complete(self) -> bool:
        return not self._waiting and not self._under_way

    @property
    def starved(self) -> bool:
        return bool(self._waiting) and not self._load

    def take(self) -> list[Request]:
        """The requests to send now, least loaded donor first."""
        requests = []
        while self._waiting and self._load:
            donor = min(self._load, key=lambda peer: (self._load[peer], peer))
            if self._load[donor] >= WINDOW:
                break
            request = Request(donor=donor, chunk=self._waiting.popleft())
            self._load[donor] += 1
            self._under_way.add(request)
            requests.append(request)
        return requests

    def arrived(self, request: Request, digest: str) -> bool:
        """Whether the chunk is good. A donor of a bad one is not asked again."""
        if digest != request.chunk.digest:
            self.corrupt += 1
            self.failed(request)
            return False
        self._under_way.discard(request)
        self.bytes_from[request.donor] += request.chunk.length
        if request.donor in self._load:
            self._load[request.donor] -= 1
        return True

    def failed(self, request: Request) -> None:
        """The donor is gone, late or does not hold this revision any more."""
        self._under_way.discard(request)
        self._waiting.appendleft(request.chunk)
        self._load.pop(request.donor, None)

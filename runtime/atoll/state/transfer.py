"""One revision of the shared state from its donors into this peer's memory.

Thread: the user's. The reactor receives, without the interpreter, while this thread verifies what
came before (the digest runs without the interpreter lock); so verifying adds no time as long as
requests are under way.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from atoll import errors
from atoll.state.fetch import Chunk, ChunkFetch, Request
from atoll.state.manifest import (
    MAX_MANIFEST_BYTES,
    Manifest,
    bytes_of,
    decode,
    digest,
    digest_of_zeros,
    majority,
)

if TYPE_CHECKING:
    import torch

    from atoll.collectives.handle import Handle
    from atoll.collectives.in_flight import Collectives
    from atoll.membership.messages import PeerId

logger = logging.getLogger(__name__)

_REQUEST_TIMEOUT_S = 60.0
"""One chunk of 1 MiB at 140 kbit/s; a slower donor is not asked again."""

_LOOK_S = 0.1
"""So often somebody looks for donors that dawdle, when nothing arrives."""

_DRAIN_S = 10.0
"""For aborted requests to end; each does at once, unless the engine hangs."""


_DONOR_FAULTS = (
    errors.StateUnavailable,
    errors.PeerLost,
    errors.DeadlineExceeded,
    errors.MisuseError,  # its buffers are not what its manifest says
)


class Receiver(Protocol):
    """Where a state goes. Called by the user's thread only."""

    def present(self) -> list[torch.Tensor]:
        """What this peer has now, in a manifest's order (uint8): of it, what is the same need not
        be fetched. Never written to."""

    def targets(self, manifest: Manifest) -> list[torch.Tensor]:
        """Where the tensors are to be received (uint8). Raises MismatchError when the manifest
        is not that of the same model and method."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a fetch came to. `chunks`: those that were sent, others were here already."""

    manifest: Manifest
    encoded: bytes
    bytes_from: dict[PeerId, int]
    kept_bytes: int
    chunks: tuple[Chunk, ...]
    corrupt: int
    seconds: float

    @property
    def fetched_bytes(self) -> int:
        return sum(self.bytes_from.values())

    def __str__(self) -> str:
        rate = self.fetched_bytes / max(1e-9, self.seconds)
        gave = sorted((count for count in self.bytes_from.values() if count), reverse=True)
        shares = ", ".join(f"{100 * count / self.fetched_bytes:.0f} %" for count in gave)
        return (
            f"revision {self.manifest.revision}: fetched {self.fetched_bytes} bytes from "
            f"{len(gave)} donors{f' ({shares})' if len(gave) > 1 else ''} in {self.seconds:.3f}"
            f" s ({rate / 1e6:.0f} MB/s), had {self.kept_bytes} already"
        )


def fetch(
    collectives: Collectives,
    receiver: Receiver,
    donors: frozenset[PeerId],
    *,
    revision: int | None,
    unless: bytes = b"",
    end: float,
) -> Fetched | bytes | None:
    """Fetches one revision (None: any) from these donors into the receiver's targets.

    Returns the manifest's bytes when they equal `unless`, and None when the donors do not serve
    the revision; the targets are then of arbitrary content. end: time.monotonic() of the latest
    answer. Raises MismatchError, and what ended the session.
    """
    found = _manifests(collectives, donors, revision, end)
    chosen = majority(list(found.values()))
    if chosen is None:
        return None
    manifest = decode(chosen)
    if revision is not None and manifest.revision != revision:
        return None
    if chosen == unless:
        return chosen
    targets = receiver.targets(manifest)
    have = partial(_have, receiver.present(), targets)
    holders = [peer for peer, data in found.items() if data == chosen]
    began = time.monotonic()
    chunk_fetch = ChunkFetch(manifest, holders, have)
    if not _Transfer(collectives, chunk_fetch, targets, manifest.revision, end).run():
        return None
    return Fetched(
        manifest=manifest,
        encoded=chosen,
        bytes_from=chunk_fetch.tally.bytes_from,
        kept_bytes=chunk_fetch.tally.kept_bytes,
        chunks=tuple(chunk_fetch.tally.fetched),
        corrupt=chunk_fetch.tally.corrupt,
        seconds=time.monotonic() - began,
    )


def _have(present: list[torch.Tensor], targets: list[torch.Tensor], chunk: Chunk) -> bool:
    """Puts a chunk that is here already, or that is all zeros, where it belongs."""
    if chunk.digest == digest_of_zeros(chunk.length):
        targets[chunk.tensor][chunk.offset : chunk.offset + chunk.length].zero_()
        return True
    if chunk.tensor >= len(present):
        return False
    part = slice(chunk.offset, chunk.offset + chunk.length)
    own = present[chunk.tensor][part]
    if own.numel() != chunk.length or digest(bytes_of(own)) != chunk.digest:
        return False
    targets[chunk.tensor][part].copy_(own)
    return True


def _manifests(
    collectives: Collectives, donors: frozenset[PeerId], revision: int | None, end: float
) -> dict[PeerId, bytes]:
    import torch

    asked = []
    for donor in sorted(donors):
        target = torch.empty(MAX_MANIFEST_BYTES, dtype=torch.uint8, device="cpu")
        handle = collectives.fetch(
            donor, revision=revision, buffer=0, offset=0, target=target, timeout_s=_left(end)
        )
        asked.append((donor, target, handle))
    found = {}
    for donor, target, handle in asked:
        length = _length(handle)
        if length is None:
            continue
        data = bytes(target[:length].numpy())
        try:
            decode(data)
        except ValueError as error:
            logger.warning("donor %s serves no state: %s", donor.hex()[:8], error)
            continue
        found[donor] = data
    return found


def _length(handle: Handle[torch.Tensor]) -> int | None:
    try:
        return handle.wait().sequence
    except _DONOR_FAULTS:
        return None


def _left(end: float) -> float:
    return max(0.001, min(_REQUEST_TIMEOUT_S, end - time.monotonic()))


class _Transfer:
    """Drives a ChunkFetch to its end. Nothing is under way any more when `run` returns."""

    def __init__(
        self,
        collectives: Collectives,
        chunk_fetch: ChunkFetch,
        targets: list[torch.Tensor],
        revision: int,
        end: float,
    ) -> None:
        self._collectives = collectives
        self._fetch = chunk_fetch
        self._targets = targets
        self._revision = revision
        self._end = end
        self._under_way: dict[Request, Handle[torch.Tensor]] = {}
        # In the order in which they end; filled by the control thread.
        self._over: queue.SimpleQueue[Request] = queue.SimpleQueue()

    def run(self) -> bool:
        """True when every chunk is there and verified."""
        try:
            while True:
                for request in self._fetch.take(time.monotonic()):
                    self._send(request)
                if not self._under_way:
                    return self._fetch.complete
                with contextlib.suppress(queue.Empty):
                    self._settle(self._over.get(timeout=_LOOK_S))
                for request in self._fetch.dawdling(time.monotonic()):
                    self._under_way[request].abort()
        finally:
            self._drain()

    def _send(self, request: Request) -> None:
        chunk = request.chunk
        handle = self._collectives.fetch(
            request.donor,
            revision=self._revision,
            buffer=chunk.tensor + 1,
            offset=chunk.offset,
            target=self._targets[chunk.tensor][chunk.offset : chunk.offset + chunk.length],
            timeout_s=_left(self._end),
        )
        self._under_way[request] = handle
        handle.add_done_callback(self._told(request))

    def _told(self, request: Request) -> Callable[[object], None]:
        return lambda _: self._over.put(request)

    def _settle(self, request: Request) -> None:
        handle = self._under_way.pop(request)
        try:
            handle.wait()
        except errors.OpAborted:
            self._fetch.released(request, time.monotonic())
        except _DONOR_FAULTS:
            self._fetch.failed(request)
        else:
            found = digest(bytes_of(handle.target))
            if not self._fetch.arrived(request, found, time.monotonic()):
                logger.warning("donor %s served a corrupt chunk", request.donor.hex()[:8])

    def _drain(self) -> None:
        """After an error: the engine writes into the targets no more."""
        for handle in self._under_way.values():
            handle.abort()
        give_up = time.monotonic() + _DRAIN_S
        while self._under_way and time.monotonic() < give_up:
            with contextlib.suppress(queue.Empty):
                self._under_way.pop(self._over.get(timeout=_LOOK_S), None)

"""Fetching the chunks of a state from several donors at once, as a pure state machine.

Only chunks that this peer does not have are asked for. Each donor has a window of bytes under way,
which grows with what it delivers; near the end a chunk goes only to a donor that will not be the
last to deliver, and one that dawdles there is asked back. A donor that fails, refuses or serves a
chunk whose digest is wrong is not asked again; what it owed goes back to the queue. The shell does
what `take` says and reports each end with `arrived`, `failed` or `released`. Times are seconds of
any clock that does not jump.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from atoll.state.manifest import CHUNK_BYTES, Manifest, chunks

FIRST_WINDOW = 2 * CHUNK_BYTES
"""Under way at a donor of which nothing is known: the next is there when the first has arrived."""

LARGEST_WINDOW = 32 * CHUNK_BYTES
"""A path of 2.5 Gbit/s with a round trip of 100 ms is full with that. Half of what a donor bears
(`limits::kMaxStateRequestsPerPeer`)."""

PATIENCE_S = 0.2
"""Only what another donor would deliver sooner by more than this is asked back."""


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


@dataclass(slots=True)
class _Donor:
    window: int = FIRST_WINDOW
    load: int = 0  # bytes under way
    got: int = 0
    busy_s: float = 0.0  # with something under way, until it last had nothing
    busy_since: float = 0.0  # while it has a load

    def rate(self, now: float) -> float | None:
        """Bytes per second while something was under way; None while it has delivered nothing."""
        busy_s = self.busy_s + (now - self.busy_since if self.load else 0.0)
        return self.got / max(1e-9, busy_s) if self.got else None

    def begin(self, length: int, now: float) -> None:
        if not self.load:
            self.busy_since = now
        self.load += length

    def end(self, length: int, now: float) -> None:
        self.load -= length
        if not self.load:
            self.busy_s += now - self.busy_since


@dataclass(slots=True)
class _Tally:
    """What has come of a fetch so far."""

    bytes_from: dict[bytes, int] = field(default_factory=dict)
    kept_bytes: int = 0
    fetched: list[Chunk] = field(default_factory=list)
    corrupt: int = 0


class ChunkFetch:
    """Done when `complete`; stuck, for want of donors, when `starved`."""

    def __init__(
        self,
        manifest: Manifest,
        donors: Iterable[bytes],
        have: Callable[[Chunk], bool] = lambda chunk: False,
    ) -> None:
        """`have` says whether this peer has the chunk, and puts it in its place if so. It is asked
        just before the chunk would be requested, so that looking costs no time of its own."""
        self._waiting = deque(
            Chunk(tensor=index, offset=offset, length=length, digest=digest)
            for index, entry in enumerate(manifest.tensors)
            for (offset, length), digest in zip(chunks(entry.nbytes), entry.digests, strict=True)
        )
        self._have = have
        self._waiting_bytes = sum(chunk.length for chunk in self._waiting)
        self._donors = {donor: _Donor() for donor in sorted(donors)}
        self._under_way: dict[Request, float] = {}  # since when
        self._asked_back: set[Request] = set()
        self.tally = _Tally(bytes_from=dict.fromkeys(self._donors, 0))

    @property
    def complete(self) -> bool:
        return not self._waiting and not self._under_way

    @property
    def starved(self) -> bool:
        return bool(self._waiting) and not self._donors

    def take(self, now: float) -> list[Request]:
        """The requests to send now."""
        requests: list[Request] = []
        while self._waiting:
            donor = self._next_donor(self._waiting[0].length, now)
            if donor is None and self._donors:
                break
            chunk = self._waiting.popleft()
            self._waiting_bytes -= chunk.length
            if self._have(chunk):
                self.tally.kept_bytes += chunk.length
            elif donor is None:
                self._again(chunk)
                break
            else:
                requests.append(self._ask(donor, chunk, now))
        return requests

    def arrived(self, request: Request, digest: str, now: float) -> bool:
        """Whether the chunk is good. A donor of a bad one is not asked again."""
        if digest != request.chunk.digest:
            self.tally.corrupt += 1
            self.failed(request)
            return False
        del self._under_way[request]
        self._asked_back.discard(request)
        self.tally.bytes_from[request.donor] += request.chunk.length
        self.tally.fetched.append(request.chunk)
        donor = self._donors.get(request.donor)
        if donor is not None:
            donor.end(request.chunk.length, now)
            donor.got += request.chunk.length
            donor.window = min(LARGEST_WINDOW, donor.window + request.chunk.length)
        return True

    def failed(self, request: Request) -> None:
        """The donor is gone, late or does not hold this revision any more."""
        self._asked_back.discard(request)
        del self._under_way[request]
        self._again(request.chunk)
        self._donors.pop(request.donor, None)

    def dawdling(self, now: float) -> list[Request]:
        """Requests to abort (each is named once), because a donor with nothing to do is faster.

        The shell says `released` when nothing of it comes any more, or `arrived` if it has.
        """
        if self._waiting:
            return []
        idle = [donor for donor in self._donors.values() if not donor.load and donor.got]
        rates = sorted((donor.rate(now) or 0.0 for donor in idle), reverse=True)
        slowest_first = sorted(self._under_way, key=lambda one: self._rest_s(one, now))[::-1]
        back = []
        for rate, request in zip(rates, slowest_first, strict=False):
            if request in self._asked_back:
                continue
            if self._rest_s(request, now) > PATIENCE_S + 2 * request.chunk.length / rate:
                self._asked_back.add(request)
                back.append(request)
        return back

    def released(self, request: Request, now: float) -> None:
        """What was asked back does not come; its donor may be asked for something else."""
        self._asked_back.discard(request)
        del self._under_way[request]
        self._again(request.chunk)
        donor = self._donors.get(request.donor)
        if donor is not None:
            donor.end(request.chunk.length, now)
            donor.window = FIRST_WINDOW

    # --- within -----------------------------------------------------------------------------------

    def _ask(self, peer: bytes, chunk: Chunk, now: float) -> Request:
        self._donors[peer].begin(chunk.length, now)
        request = Request(donor=peer, chunk=chunk)
        self._under_way[request] = now
        return request

    def _again(self, chunk: Chunk) -> None:
        self._waiting.appendleft(chunk)
        self._waiting_bytes += chunk.length

    def _rest_s(self, request: Request, now: float) -> float:
        """How long a request may still take: as its donor has been, or as it has taken already."""
        donor = self._donors.get(request.donor)
        rate = None if donor is None else donor.rate(now)
        since = now - self._under_way[request]
        return since if donor is None or rate is None else max(since, donor.load / rate)

    def _next_donor(self, length: int, now: float) -> bytes | None:
        """Who delivers `length` bytes soonest, among those with room; None: better wait.

        With rates r and loads l, all would be done after (waiting + sum(l)) / sum(r) at best. Who
        would take longer than that, and a chunk for each, is not asked: so at the end nobody waits
        for the slow. The soonest of all always passes, so there is always somebody to wait for.
        """
        rates = {peer: donor.rate(now) for peer, donor in self._donors.items()}
        known = [rate for rate in rates.values() if rate is not None]
        typical = sum(known) / len(known) if known else 1.0
        together = sum(typical if rate is None else rate for rate in rates.values())
        left = self._waiting_bytes + sum(donor.load for donor in self._donors.values())
        bound_s = (left + length * len(rates)) / together if together else 0.0
        best: tuple[float, bytes] | None = None
        for peer, donor in self._donors.items():
            rate = rates[peer]
            if donor.load and donor.load + length > donor.window:
                continue
            rest_s = (donor.load + length) / (typical if rate is None else rate)
            if rest_s <= bound_s * 1.001 and (best is None or (rest_s, peer) < best):
                best = (rest_s, peer)
        return None if best is None else best[1]

"""Jobs that never ran, for a page to show: islands at sites, a loss that falls, churn."""

from __future__ import annotations

import math
import random

from atoll.membership.events import JobEvent, JobStatus, PeerStatus
from atoll.membership.messages import Departure, Endpoint, LinkFigures, PeerId, PeerInfo, Report
from atoll.watching.board import Board

BEGAN_S = 1_764_000_000.0
ROUND_S = 24.0


class MadeUpJob:
    """`play(rounds)` tells a board of so many rounds; one seed, one story."""

    def __init__(self, islands: int, *, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._islands = islands
        self._names = [name_of(number, islands) for number in range(islands)]
        self._speed = [self._random.uniform(0.75, 1.25) for _ in range(islands)]
        self._tokens = [0] * islands
        self._gone: set[int] = set()
        self._numbers = 0
        self.round = 0

    def play(self, board: Board, rounds: int) -> None:
        for number in range(self._islands):
            if self.round == 0 and number < 12:
                self._tell(board, "joined", f"{self._names[number]} joined", number)
        board.links(1, self._figures())
        for _ in range(rounds):
            self.round += 1
            if self.round % 40 == 25:
                victim = self._random.randrange(self._islands)
                self._gone.add(victim)
                text = f"{self._names[victim]} left: crashed (its connections were reset)"
                self._tell(board, "left", text, victim, Departure.CRASHED)
                self._tell(board, "view", f"view {self._epoch} (abort): {self._islands - 1}", -1)
            elif self.round % 40 == 36 and self._gone:
                back = self._gone.pop()
                self._tell(board, "view", f"view {self._epoch} (drain): {self._islands}", -1)
                self._tell(board, "joined", f"{self._names[back]} joined", back)
            for number in range(self._islands):
                if number not in self._gone:
                    self._tokens[number] += int(9e5 * self._speed[number])
            board.observe(
                self._status(), leader="", uptime_s=self.round * ROUND_S, unix_s=self._now_s
            )

    @property
    def _now_s(self) -> float:
        return BEGAN_S + self.round * ROUND_S

    @property
    def _epoch(self) -> int:
        return 1 + self.round // 20

    def _tell(
        self, board: Board, kind: str, text: str, number: int, left: Departure | None = None
    ) -> None:
        self._numbers += 1
        island = self._names[number] if number >= 0 else ""
        event = JobEvent(
            number=self._numbers, at_s=0, kind=kind, message=text, island=island, departure=left
        )
        board.tell(event, self._now_s)

    def _status(self) -> JobStatus:
        here = [number for number in range(self._islands) if number not in self._gone]
        loss = 1.9 + 3.4 * math.exp(-self.round / 90) + 0.05 * self._random.random()
        return JobStatus(
            job="reef-125m",
            epoch=self._epoch,
            members=tuple(peer_id(number) for number in here),
            peers=tuple(self._peer(number, loss) for number in here),
            round=self.round,
            loss=loss,
            parity_failures=0,
            min_islands=2,
            view_changes={},
            departures={},
            departed={},
            islands=tuple(self._names),
            shards=1,
        )

    def _peer(self, number: int, loss: float) -> PeerStatus:
        compute_s = 18.0 / self._speed[number]
        return PeerStatus(
            info=PeerInfo(
                id=peer_id(number),
                island=self._names[number],
                order=number,
                endpoints=(Endpoint(host="10.0.0.1", port=7000),),
            ),
            state="member",
            heard_ago_s=self._random.uniform(0, 1),
            connected=True,
            report=Report(
                round=self.round,
                loss=loss + self._random.uniform(-0.05, 0.05),
                tokens=self._tokens[number],
                tokens_per_s=9e5 * self._speed[number] / ROUND_S,
                sync_s=max(0.4, ROUND_S - compute_s),
                round_s=max(ROUND_S, compute_s + 0.4),
                sent_bytes=self.round * 62_000_000,
                received_bytes=self.round * 61_000_000,
                phase="exchanging" if number % 9 == 4 else "training",
                contributed=True,
            ),
        )

    def _figures(self) -> dict[tuple[PeerId, PeerId], LinkFigures]:
        return {
            (peer_id(one), peer_id(other)): self._link(one, other)
            for one in range(self._islands)
            for other in range(self._islands)
            if one != other
        }

    def _link(self, one: int, other: int) -> LinkFigures:
        """Fast within a site, slower between sites, slow from and to one place."""
        sites = {site_of(one, self._islands), site_of(other, self._islands)}
        rate, rtt_s = (1.1e8, 0.0008) if len(sites) == 1 else (2.6e7, 0.035)
        if "attic" in sites:
            rate, rtt_s = 2.4e6, 0.062
        elif "osaka" in sites and len(sites) == 2:
            rate, rtt_s = 9e6, 0.21
        noise = self._random.uniform(0.85, 1.15)
        return LinkFigures(rate_bytes_per_s=rate * noise, rtt_s=rtt_s * noise)


SITES = ("lille", "turin", "osaka", "attic")


def site_of(number: int, islands: int) -> str:
    """The last twentieth is somebody's home, the rest are three clouds."""
    if number >= islands - max(1, islands // 20):
        return "attic"
    return SITES[number * 3 // islands]


def name_of(number: int, islands: int) -> str:
    return f"{site_of(number, islands)}-{number}"


def peer_id(number: int) -> PeerId:
    return number.to_bytes(16, "big")

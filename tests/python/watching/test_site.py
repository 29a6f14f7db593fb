"""The coordinator's HTTP server: who gets an answer, and what it says."""

from __future__ import annotations

import http.client
import json
import math
import re
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from atoll.errors import ConfigError
from atoll.membership.events import JobEvent, JobStatus, PeerStatus
from atoll.membership.messages import Departure, Endpoint, LinkFigures, PeerInfo, Report
from atoll.watching.board import Board
from atoll.watching.discovery import targets
from atoll.watching.history import MOST_POINTS, History
from atoll.watching.site import coordinator_site
from atoll.watching.web import WebServer

ALERTS = Path(__file__).parents[3] / "ops" / "alerts.yml"


def peer(number: int, *, shard: int = 0, host: str = "127.0.0.1", **report: Any) -> PeerStatus:
    return PeerStatus(
        info=PeerInfo(
            id=bytes([number]) * 16,
            island=f"island-{number - shard}",
            order=number,
            endpoints=(Endpoint(host=host, port=5000 + number),),
            shard=shard,
        ),
        state="member",
        heard_ago_s=0.1,
        connected=True,
        report=Report(**{"metrics_port": 9000 + number, **report}),
    )


def job(*peers: PeerStatus, **rest: Any) -> JobStatus:
    fields: dict[str, Any] = {
        "job": "reef",
        "epoch": 3,
        "members": tuple(one.info.id for one in peers),
        "peers": peers,
        "round": 0,
        "loss": math.nan,
        "parity_failures": 0,
        "min_islands": 2,
        "view_changes": {},
        "departures": {},
        "islands": (),
        "departed": {},
        "shards": 1,
    }
    return JobStatus(**{**fields, **rest})


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board("reef")
    yield made
    made.close()


@pytest.fixture
def site(board: Board) -> Iterator[WebServer]:
    server = coordinator_site(board, CollectorRegistry(), None)
    server.listen("127.0.0.1", 0)
    yield server
    server.close()


def get(server: WebServer, path: str, **headers: str) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.getheader("Content-Security-Policy", ""), body


def frames(server: WebServer, count: int) -> list[tuple[str, Any]]:
    """The first events of a stream."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/events")
    answer = connection.getresponse()
    assert answer.getheader("Content-Type") == "text/event-stream"
    found = []
    while len(found) < count:
        line = answer.readline().decode()
        if line.startswith("event: "):
            found.append((line[7:].strip(), json.loads(answer.readline().decode()[6:])))
    connection.close()
    return found


# --- discovery ------------------------------------------------------------------------------------


def test_targets_are_the_islands_that_serve_metrics() -> None:
    silent = peer(3, metrics_port=0)
    found = targets(job(peer(2, host="10.0.0.7"), peer(1), silent, shards=1), secure=True)
    assert [(t["targets"], t["labels"]["__scheme__"]) for t in found] == [  # type: ignore[index]
        (["127.0.0.1:9001"], "http"),
        (["10.0.0.7:9002"], "https"),
    ]
    assert found[0]["labels"] == {
        "job": "reef",
        "island": "island-1",
        "shard": "0",
        "reach": "outbound",
        "__scheme__": "http",
    }
    assert targets(None, secure=False) == []


def test_who_cannot_be_dialled_says_so_and_nobody_is_missed_for_it() -> None:
    def reach(*peers: PeerStatus, **rest: Any) -> list[object]:
        found = targets(job(*peers, **rest), secure=True)
        return [t["labels"].get("reach") for t in found]  # type: ignore[attr-defined]

    here, there = peer(1), peer(2, host="10.0.0.7")
    assert reach(here, peer(3)) == [None, None]  # all on one machine
    assert reach(here, there) == ["outbound", None]  # it only dials
    assert reach(there, peer(3, host="10.0.0.8"), unreached=frozenset([bytes([3]) * 16])) == [
        None,
        "outbound",
    ]
    (rule,) = re.findall(r"AtollIslandNotScraped\n\s+expr: (.*)\n", ALERTS.read_text())
    assert rule == 'up{island!="",reach=""} == 0'


def test_an_ipv6_target_has_brackets() -> None:
    (found,) = targets(job(peer(1, host="2001:db8::7")), secure=False)
    assert found["targets"] == ["[2001:db8::7]:9001"]


# --- rounds ---------------------------------------------------------------------------------------


def observed(history: History, round: int, tokens: int, unix_s: float) -> None:
    history.observe(job(peer(1, tokens=tokens), round=round, loss=2.0), unix_s)


def test_tokens_a_second_are_those_between_rounds() -> None:
    history = History()
    observed(history, 0, 1000, 10.0)  # what was trained before anybody looked does not count
    observed(history, 1, 1400, 12.0)
    observed(history, 1, 1500, 12.5)
    observed(history, 2, 2000, 15.0)
    assert [(p.round, p.tokens_per_s) for p in history.points] == [(1, 200.0), (2, 200.0)]


def test_a_job_that_went_back_to_a_checkpoint_goes_on_from_there() -> None:
    history = History()
    for round in (1, 2, 3, 2):
        observed(history, round, 0, float(round))
    assert [point.round for point in history.points] == [1, 2]


def test_the_history_is_bounded_and_keeps_its_ends() -> None:
    history = History()
    for round in range(1, 5 * MOST_POINTS):
        observed(history, round, round, float(round))
    rounds = [point.round for point in history.points]
    assert len(rounds) <= MOST_POINTS
    assert (rounds[0], rounds[-1]) == (1, 5 * MOST_POINTS - 1)
    assert rounds == sorted(set(rounds))


# --- the server -----------------------------------------------------------------------------------


def test_only_names_of_loopback_are_answered(site: WebServer) -> None:
    """A page from elsewhere, whose name was pointed at 127.0.0.1, cannot read the job."""
    assert get(site, "/metrics")[0] == 200
    assert get(site, "/metrics", Host="localhost:9400")[0] == 200
    assert get(site, "/metrics", Host="[::1]:9400")[0] == 200
    assert get(site, "/metrics", Host="evil.example:9400")[0] == 421
    assert get(site, "/metrics", Host="127.0.0.1.evil.example")[0] == 421
    assert get(site, "/other")[0] == 404


def test_the_page_may_run_only_what_is_its_own(site: WebServer) -> None:
    status, policy, body = get(site, "/")
    assert status == 200
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert policy.count("sha256-") == 2
    assert b"http://" not in body.replace(b"http://www.w3.org/2000/svg", b"")
    assert b"https://" not in body


def test_who_watches_is_told_everything_and_then_the_news(site: WebServer, board: Board) -> None:
    status = job(peer(1, round=7, sync_s=0.5, round_s=2.0), peer(2), round=7, loss=1.5)
    board.links(1, {(b"\1" * 16, b"\2" * 16): LinkFigures(rate_bytes_per_s=1e6, rtt_s=0.08)})
    board.tell(
        JobEvent(
            number=4,
            at_s=0.0,
            kind="left",
            message="island-9 left: crashed",
            island="island-9",
            departure=Departure.CRASHED,
        ),
        1e9,
    )
    board.observe(status, leader="", uptime_s=5.0, unix_s=1e9)
    told = dict(frames(site, 4))
    assert told["rounds"]["points"] == [[1e9, 7, 1.5, None, 2]]
    assert told["events"]["events"][0]["reason"] == "crashed"
    first = told["state"]["islands"][0]
    assert (first["name"], first["compute_s"], first["wait_s"]) == ("island-1", 1.5, 0.5)
    assert told["links"]["rate_bytes_per_s"] == [[None, 1e6], [None, None]]
    assert told["links"]["rtt_s"][0][1] == 0.08


def test_a_watcher_is_told_only_what_is_new(board: Board) -> None:
    stream = board.stream()
    board.observe(job(peer(1), round=1), leader="", uptime_s=0, unix_s=1.0)
    assert next(stream).count(b"event: ") == 4
    board.observe(job(peer(1), round=2), leader="", uptime_s=1, unix_s=2.0)
    news = next(stream)
    assert news.count(b"event: ") == 2
    assert b'"anew":false,"points":[[2.0,2,' in news
    board.observe(None, leader="10.0.0.5:7000", uptime_s=2, unix_s=3.0)
    assert b"event: standby" in next(stream)


def test_a_hundred_islands_take_little_of_the_line(board: Board) -> None:
    peers = [peer(number, round=number, loss=2.123456789) for number in range(1, 101)]
    ids = [one.info.id for one in peers]
    figures = LinkFigures(rate_bytes_per_s=123456.789, rtt_s=0.123456)
    board.links(1, {(a, b): figures for a in ids for b in ids if a != b})
    stream = board.stream()
    board.observe(job(*peers, round=1), leader="", uptime_s=0, unix_s=1.0)
    assert len(next(stream)) < 300_000
    changed = [replace(one, heard_ago_s=0.7) for one in peers]
    board.observe(job(*changed, round=1), leader="", uptime_s=0, unix_s=2.0)
    assert len(next(stream)) < 40_000


# --- beyond loopback ------------------------------------------------------------------------------


def test_nothing_is_shown_beyond_loopback_without_certificates(site: WebServer) -> None:
    server = WebServer({})
    with pytest.raises(ConfigError, match="ssh -L"):
        server.listen("0.0.0.0", 0)


def test_beyond_loopback_callers_need_a_certificate_of_the_job(
    board: Board, tmp_path: Path
) -> None:
    from atoll.trust.identity import Identity
    from atoll_launcher.trust.certs import issue_island, make_authority

    for name in ("ours", "other"):
        make_authority("reef", tmp_path / name, days=1)
    issue_island(tmp_path / "ours", "revoked", tmp_path / "ours" / "revoked", days=1)
    identity = Identity.in_folder(tmp_path / "ours" / "coordinator")
    server = coordinator_site(board, CollectorRegistry(), identity)
    revoked = (tmp_path / "ours" / "revoked" / "cert.pem").read_text()
    port = server.listen(
        "0.0.0.0", 0, identity, admits=lambda der: ssl.DER_cert_to_PEM_cert(der) not in revoked
    )

    def status(folder: Path | None) -> int:
        context = ssl.create_default_context(cafile=tmp_path / "ours" / "coordinator" / "ca.pem")
        context.check_hostname = False
        if folder is not None:
            context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().status
        except (ssl.SSLError, ConnectionError):
            return 0
        finally:
            connection.close()

    try:
        assert status(tmp_path / "ours" / "operator") == 200
        assert status(tmp_path / "ours" / "revoked") == 0
        assert status(tmp_path / "other" / "operator") == 0
        assert status(None) == 0
    finally:
        server.close()

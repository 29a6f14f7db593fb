"""Stores: what was saved comes back, and what is no store is refused in one line."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from atoll.errors import ConfigError
from atoll.membership.events import End, Snapshot
from atoll.membership.messages import ChangeKind, Departure, Endpoint, PeerInfo, View
from atoll.membership.starts import Issued, Ring
from atoll.store import StoreUnavailable
from atoll.store.encode import from_json, to_json
from atoll.store.locate import open_store
from atoll.store.memory import MemoryStore
from atoll.store.sqlite import SqliteStore

PALM = PeerInfo(id=b"p" * 16, island="palm", order=3, endpoints=(Endpoint(host="::1", port=7),))
TWIN = PeerInfo(id=b"q" * 16, island="palm", order=4, endpoints=(), shard=1)
SNAPSHOT = Snapshot(
    job="reef",
    secret=bytes(range(32)),
    next_order=4,
    next_event=7,
    attempt=9,
    pending=True,
    issued=(
        Issued(view=View(), kind=ChangeKind.ABORT),
        Issued(
            view=View(epoch=2, members=(PALM, TWIN)),
            kind=ChangeKind.DRAIN,
            rings=(Ring(starts={0: 5, 7: 1}, topology=b"\1"), Ring(starts={0: 4})),
            base=1,
        ),
    ),
    holders=frozenset({PALM.id}),
    state_epoch=1,
    trained=True,
    complete=True,
    peers=(PALM, TWIN),
    islands=("fern", "palm"),
    shards=2,
    ends=(End(reason=Departure.DRAINED, message="shard 1: it left", shard=TWIN),),
    held_back=frozenset({TWIN.id}),
)


def test_json_goes_there_and_back() -> None:
    assert from_json(to_json(SNAPSHOT)) == SNAPSHOT


def test_memory_keeps_the_last() -> None:
    async def story() -> None:
        store = MemoryStore()
        assert await store.lead("here:1") is None
        await store.save(SNAPSHOT)
        assert await store.lead("here:1") == SNAPSHOT
        assert store.leader() == "here:1"

    asyncio.run(story())


def test_sqlite_keeps_the_last_across_restarts(tmp_path: Path) -> None:
    path = tmp_path / "job.db"
    store = SqliteStore(path)
    assert store.load() is None

    async def save() -> None:
        await store.save(from_json(to_json(SNAPSHOT).replace('"attempt": 9', '"attempt": 8')))
        await store.save(SNAPSHOT)
        await store.close()

    asyncio.run(save())
    again = SqliteStore(path)
    assert again.load() == SNAPSHOT
    asyncio.run(again.close())
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("SELECT count(*) FROM coordinator").fetchone() == (1,)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    text, other = tmp_path / "notes.txt", tmp_path / "other.db"
    text.write_text("not a database, and long enough to be none: " * 10)
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE fish (name TEXT)")
    connection.close()
    with pytest.raises(ConfigError, match=r"notes\.txt: cannot be used as a store"):
        SqliteStore(text)
    with pytest.raises(ConfigError, match=r"other\.db: a database of something else"):
        SqliteStore(other)
    with pytest.raises(ConfigError, match="cannot be used as a store"):
        SqliteStore(tmp_path / "nowhere" / "job.db")


def test_a_corrupt_store_is_named(tmp_path: Path) -> None:
    path = tmp_path / "job.db"
    asyncio.run(SqliteStore(path).close())
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO coordinator VALUES (1, '{\"job\": 3}')")
    connection.close()
    with pytest.raises(ConfigError, match=r"job\.db: corrupt"):
        SqliteStore(path).load()


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "job.db"
    asyncio.run(SqliteStore(path).close())
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(ConfigError, match="written in format 2"):
        SqliteStore(path)


def test_a_file_in_use_by_another_coordinator_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "job.db"
    first = SqliteStore(path)
    with pytest.raises(ConfigError, match=r"job\.db: another coordinator has it open"):
        SqliteStore(path)
    asyncio.run(first.close())
    asyncio.run(SqliteStore(path).close())


def test_a_write_that_fails_is_told(tmp_path: Path) -> None:
    async def story() -> None:
        store = SqliteStore(tmp_path / "job.db")
        await store.save(SNAPSHOT)
        store._connection.execute("PRAGMA query_only = 1")
        with pytest.raises(StoreUnavailable, match=r"job\.db cannot be written"):
            await store.save(SNAPSHOT)
        await store.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("memory", "memory"),
        ("sqlite:{}/a.db", "sqlite:{}/a.db"),
        ("{}/a.db", "sqlite:{}/a.db"),
        ("etcd://h:1", "etcd://h:1/atoll/reef"),
        ("etcds://h:1/x", "etcds://h:1/x"),
        ("etcd://h:1,[::1]:2/my/jobs/", "etcd://h:1,[::1]:2/my/jobs"),
    ],
)
def test_a_store_is_named_by_a_text(tmp_path: Path, text: str, where: str) -> None:
    store = open_store(text.format(tmp_path), job="reef")
    assert store.where == where.format(tmp_path)
    assert store.shared == text.startswith("etcd")
    asyncio.run(store.close())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "unknown; expected one of memory"),
        ("sqlite:", "no path"),
        ("redis://h:1", "unknown"),
        ("etcd:h:1", "expected etcd://"),
        ("etcd://h", "'h': expected HOST:PORT"),
        ("etcd://h:1,/x", "'': expected HOST:PORT"),
        ("etcd://h:1/a b", "the prefix may hold"),
        ("etcd://h:1/x?ca=y", "write etcds://"),
        ("etcds://h:1/x?c=y", "unknown 'c'; there are ca, cert and key"),
        ("etcds://h:1/x?cert=y", "cert and key go together"),
        ("etcds://h:1/x?ca=/nowhere.pem", "ca /nowhere.pem: No such file"),
        ("etcds://h:1/x?ca=/dev/null", "ca /dev/null: no PEM file"),
    ],
)
def test_a_text_that_names_no_store_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        open_store(text, job="reef")

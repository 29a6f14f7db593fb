"""Stores: what was saved comes back, and what is no store is refused in one line."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from atoll.errors import ConfigError
from atoll.membership.events import Snapshot
from atoll.membership.messages import ChangeKind, Endpoint, PeerInfo, View
from atoll.membership.starts import Issued
from atoll.store.encode import from_json, to_json
from atoll.store.memory import MemoryStore
from atoll.store.sqlite import SqliteStore

PALM = PeerInfo(id=b"p" * 16, island="palm", order=3, endpoints=(Endpoint(host="::1", port=7),))
SNAPSHOT = Snapshot(
    job="reef",
    secret=bytes(range(32)),
    next_order=4,
    attempt=9,
    pending=True,
    issued=(
        Issued(view=View(), kind=ChangeKind.ABORT),
        Issued(
            view=View(epoch=2, members=(PALM,)), kind=ChangeKind.DRAIN, starts={0: 5, 7: 1}, base=1
        ),
    ),
    holders=frozenset({PALM.id}),
    state_epoch=1,
    complete=True,
    peers=(PALM,),
)


def test_json_goes_there_and_back() -> None:
    assert from_json(to_json(SNAPSHOT)) == SNAPSHOT


def test_memory_keeps_the_last() -> None:
    store = MemoryStore()
    assert store.load() is None
    store.save(SNAPSHOT)
    assert store.load() == SNAPSHOT


def test_sqlite_keeps_the_last_across_restarts(tmp_path: Path) -> None:
    path = tmp_path / "job.db"
    store = SqliteStore(path)
    assert store.load() is None
    store.save(from_json(to_json(SNAPSHOT).replace('"attempt": 9', '"attempt": 8')))
    store.save(SNAPSHOT)
    store.close()
    again = SqliteStore(path)
    assert again.load() == SNAPSHOT
    again.close()
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
    SqliteStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO coordinator VALUES (1, '{\"job\": 3}')")
    connection.close()
    with pytest.raises(ConfigError, match=r"job\.db: corrupt"):
        SqliteStore(path).load()


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "job.db"
    SqliteStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(ConfigError, match="written in format 2"):
        SqliteStore(path)

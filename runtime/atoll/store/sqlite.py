"""A store in one SQLite file: a snapshot a row, the last one counts."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from atoll.errors import ConfigError
from atoll.membership.events import Snapshot
from atoll.store.encode import from_json, to_json

APPLICATION_ID = 0x41544F4C  # "ATOL", in the header of the file
FORMAT = 1


class SqliteStore:
    """Owns the file's connection. Saving is one transaction, on the disk when it returns: an epoch
    that was used and forgotten would be used twice."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError when the file is no store of atoll's or cannot be opened."""
        self._path = path
        try:
            self._connection = sqlite3.connect(path, isolation_level=None)
            self._prepare()
        except sqlite3.Error as error:
            raise ConfigError(f"{path}: cannot be used as a store: {error}") from error

    def load(self) -> Snapshot | None:
        try:
            row = self._connection.execute("SELECT state FROM coordinator").fetchone()
        except sqlite3.Error as error:
            raise self._corrupt(str(error)) from error
        if row is None:
            return None
        try:
            return from_json(row[0])
        except (ValueError, KeyError, TypeError) as error:
            raise self._corrupt(f"{type(error).__name__}: {error}") from error

    def save(self, snapshot: Snapshot) -> None:
        self._connection.execute(
            "INSERT INTO coordinator (one, state) VALUES (1, ?) "
            "ON CONFLICT (one) DO UPDATE SET state = excluded.state",
            (to_json(snapshot),),
        )

    def close(self) -> None:
        self._connection.close()

    def _prepare(self) -> None:
        execute = self._connection.execute
        (application,) = execute("PRAGMA application_id").fetchone()
        (tables,) = execute("SELECT count(*) FROM sqlite_master").fetchone()
        (version,) = execute("PRAGMA user_version").fetchone()
        if application != APPLICATION_ID and tables:
            self._connection.close()
            raise ConfigError(f"{self._path}: a database of something else; name another file")
        if application == APPLICATION_ID and version != FORMAT:
            self._connection.close()
            raise ConfigError(
                f"{self._path}: written in format {version}, this release reads {FORMAT}; "
                "name another file or use the release that wrote it"
            )
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        execute("BEGIN IMMEDIATE")
        execute(f"PRAGMA application_id = {APPLICATION_ID}")
        execute(f"PRAGMA user_version = {FORMAT}")
        execute(
            "CREATE TABLE IF NOT EXISTS coordinator "
            "(one INTEGER PRIMARY KEY CHECK (one = 1), state TEXT NOT NULL)"
        )
        execute("COMMIT")

    def _corrupt(self, what: str) -> ConfigError:
        return ConfigError(f"{self._path}: corrupt ({what}); restore it, or name another file")

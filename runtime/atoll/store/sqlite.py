"""A store in one SQLite file: a snapshot a row, the last one counts."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from atoll.errors import ConfigError
from atoll.membership.events import Snapshot
from atoll.store import StoreUnavailable
from atoll.store.encode import from_json, to_json

APPLICATION_ID = 0x41544F4C  # "ATOL", in the header of the file
FORMAT = 1
LOCK_WAIT_S = 1.0
"""For a predecessor that is just being killed to be gone."""


class SqliteStore:
    """Owns the file, as long as it is open: another process is refused, or two coordinators would
    issue the same epoch. The kernel lets go of it when the process dies, however it dies. Saving is
    one transaction, on the disk when it returns: an epoch that was used and forgotten would be used
    twice."""

    shared = False

    def __init__(self, path: Path) -> None:
        """Raises ConfigError when the file is no store of atoll's, cannot be opened, or is in use
        by another coordinator."""
        self.where = f"sqlite:{path}"
        self._path = path
        self._address = ""
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=LOCK_WAIT_S)
            self._prepare()
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                raise ConfigError(
                    f"{path}: another coordinator has it open; end that one, or name another file"
                ) from error
            raise ConfigError(f"{path}: cannot be used as a store: {error}") from error

    async def lead(self, address: str) -> Snapshot | None:
        self._address = address
        return self.load()

    def lost(self) -> str:
        return ""

    def leader(self) -> str:
        return self._address

    async def confirm(self) -> None:
        pass

    async def resign(self) -> None:
        pass

    def load(self) -> Snapshot | None:
        """What was saved last, or None. Raises ConfigError when it cannot be read."""
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

    async def save(self, snapshot: Snapshot) -> None:
        try:
            self._connection.execute(
                "INSERT INTO coordinator (one, state) VALUES (1, ?) "
                "ON CONFLICT (one) DO UPDATE SET state = excluded.state",
                (to_json(snapshot),),
            )
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{self._path} cannot be written: {error}") from error

    async def close(self) -> None:
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
        # Before the journal's mode: the lock is taken by the first write and kept to the end.
        execute("PRAGMA locking_mode = EXCLUSIVE")
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

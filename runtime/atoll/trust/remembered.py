"""What a job's authority must not forget, whatever becomes of its jobs: which certificates it has
declared void, and which tokens were used.

A coordinator's store says so, too, but may be a new one: a job that is started again would let in
what was revoked, and whoever has overheard a token. This is a file beside the authority's key.

Thread: the coordinator's loop, which alone writes the file.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from atoll.errors import ConfigError

logger = logging.getLogger(__name__)

FILE = "remembered.json"
KEPT_AFTER_S = 3600.0
"""A used token is remembered for so long after it has expired: clocks differ."""


class Remembered:
    """Reads the file once. Without a folder, or where it cannot be written, it lasts as long as
    this process."""

    def __init__(self, folder: Path | None) -> None:
        """Raises ConfigError for a file that is there and cannot be read: to go on would let in
        what was put out."""
        self._path = None if folder is None else folder / FILE
        self._revoked: dict[str, float] = {}
        self._used: dict[str, tuple[float, str]] = {}
        if self._path is not None and self._path.exists():
            try:
                known = json.loads(self._path.read_text())
                self._revoked = {str(k): float(v) for k, v in known["revoked"].items()}
                self._used = {str(k): (float(v[0]), str(v[1])) for k, v in known["used"].items()}
            except OSError as error:
                raise ConfigError(f"{self._path}: {error.strerror}") from None
            except (ValueError, KeyError, TypeError, AttributeError, IndexError):
                raise ConfigError(
                    f"{self._path}: damaged; it says whose certificates are void. Bring it back "
                    "from a backup; or make a new authority (atoll certs init) and new tokens"
                ) from None

    @property
    def revoked(self) -> Mapping[str, float]:
        """By name, until when (Unix time) its certificates and tokens are void."""
        return self._revoked

    def revoke(self, name: str, unix_s: float) -> None:
        """Those that were made until then are void."""
        self._revoked[name] = max(unix_s, self._revoked.get(name, 0.0))
        self._write()

    def used_by(self, token: str) -> str | None:
        """The key that came with a token; None: it was not used."""
        found = self._used.get(token)
        return None if found is None else found[1]

    def use(self, token: str, key: str, *, expires_s: float, now_s: float) -> None:
        """The first key that comes with it gets it."""
        if token in self._used:
            return
        self._used = {
            known: (end_s, by)
            for known, (end_s, by) in self._used.items()
            if end_s >= now_s - KEPT_AFTER_S
        }
        self._used[token] = (expires_s, key)
        self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        data = {"revoked": self._revoked, "used": self._used}
        draft = self._path.with_suffix(".new")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(data, file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink()
            logger.warning(
                "%s: %s; a job with another store would take what was revoked or used until now",
                self._path,
                error.strerror,
            )

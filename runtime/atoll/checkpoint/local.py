"""Checkpoints in a folder: a temporary folder is filled, synced and renamed as a whole.

A writer holds a lock (flock) on its temporary folder, which ends with its process, whatever ends
it. So whoever finds such a folder without a lock knows that nobody will finish it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import time
from pathlib import Path

from atoll.checkpoint import manifest as manifests
from atoll.checkpoint.rules import round_of

logger = logging.getLogger(__name__)

TEMPORARY = ".tmp-"
STALE_S = 60.0
"""A writer takes its lock at once; one that has just made its folder is given so long."""
WRITE_BYTES = 8 << 20


def sync_folder(path: Path) -> None:
    """Makes the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class LocalPlace:
    """A folder of this machine's file system (which may be shared, as NFS is)."""

    reads_are_cheap = True

    def __init__(self, path: str) -> None:
        self.root = Path(path).absolute()
        self.url = str(self.root)

    def names(self) -> list[str]:
        return [name for name in self.folders() if round_of(name) is not None]

    def folders(self) -> list[str]:
        try:
            return os.listdir(self.root)
        except FileNotFoundError:
            return []

    def draft(self, name: str) -> LocalDraft:
        if not self.root.is_dir():
            self.root.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):  # not ours to open, perhaps
                sync_folder(self.root.parent)
        return LocalDraft(self.root, name)

    def read(self, name: str, file: str) -> bytes:
        return (self.root / name / file).read_bytes()

    def size(self, name: str, file: str) -> int:
        return (self.root / name / file).stat().st_size

    def delete(self, name: str) -> None:
        hidden = self.root / f"{TEMPORARY}deleted-{name}"
        os.rename(self.root / name, hidden)
        sync_folder(self.root)
        shutil.rmtree(hidden, ignore_errors=True)

    def clean(self) -> None:
        for path in self.root.glob(f"{TEMPORARY}*"):
            with contextlib.suppress(OSError):  # gone meanwhile, or not ours
                if time.time() - path.stat().st_mtime > STALE_S and _is_abandoned(path):
                    logger.info("removing %s, which a writer that died has left", path)
                    shutil.rmtree(path, ignore_errors=True)


class LocalDraft:
    """Owns the temporary folder and its lock until `commit` or `abandon`."""

    def __init__(self, root: Path, name: str) -> None:
        self._root, self._name = root, name
        self._path = root / f"{TEMPORARY}{name}"
        self._path.mkdir()
        self._lock = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        with contextlib.suppress(OSError):  # a file system without locks: see _is_abandoned
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, file: str, data: bytes) -> None:
        with (self._path / file).open("xb", buffering=0) as target:
            view = memoryview(data)
            while view:
                view = view[target.write(view[:WRITE_BYTES]) :]
            os.fsync(target.fileno())

    def commit(self, manifest: bytes) -> None:
        self.write(manifests.FILE, manifest)
        sync_folder(self._path)
        os.rename(self._path, self._root / self._name)
        sync_folder(self._root)
        self._unlock()

    def abandon(self) -> None:
        if self._lock >= 0:
            shutil.rmtree(self._path, ignore_errors=True)
            self._unlock()

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _is_abandoned(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks here: a day is longer than any write
        return time.time() - path.stat().st_mtime > 86_400
    finally:
        os.close(fd)
    return True

"""Checkpoints at a URL of fsspec: object stores and other machines' folders.

There is no rename that could be relied on, so the files are written where they stay, and the
manifest last: its presence makes the checkpoint complete.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from atoll.checkpoint import manifest as manifests
from atoll.checkpoint.rules import round_of
from atoll.errors import ConfigError


@contextlib.contextmanager
def _only_os_errors() -> Iterator[None]:
    """Drivers have exceptions of their own; this module's callers know OSError alone."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # whatever a driver raises
        raise OSError(f"{type(error).__name__}: {error}") from error


class RemotePlace:
    """A prefix in a file system of fsspec's."""

    reads_are_cheap = False

    def __init__(self, url: str) -> None:
        """Raises ConfigError when fsspec or the URL's driver is missing."""
        self.url = url.rstrip("/")
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise ConfigError(
                f"{url}: URLs need fsspec; install it with: pip install 'atoll[remote]'"
            ) from None
        try:
            fs, root = url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"{url}: {error}") from None
        self._fs: Any = fs
        self._root: str = root.rstrip("/")

    def names(self) -> list[str]:
        return [name for name, files in self._listing().items() if manifests.FILE in files]

    def folders(self) -> list[str]:
        with _only_os_errors():
            self._fs.invalidate_cache()
            try:
                paths = self._fs.ls(self._root, detail=False)
            except FileNotFoundError:
                return []
        return [str(path).rstrip("/").rpartition("/")[2] for path in paths]

    def draft(self, name: str) -> RemoteDraft:
        return RemoteDraft(self._fs, self._path(name))

    def read(self, name: str, file: str) -> bytes:
        with _only_os_errors():
            return bytes(self._fs.cat_file(self._path(name, file)))

    def size(self, name: str, file: str) -> int:
        with _only_os_errors():
            return int(self._fs.info(self._path(name, file))["size"])

    def delete(self, name: str) -> None:
        with _only_os_errors():
            self._fs.rm_file(self._path(name, manifests.FILE))
            self._fs.rm(self._path(name), recursive=True)

    def clean(self) -> None:
        """Without a manifest and older than all that have one: nobody waits for it any more."""
        listing = self._listing()
        rounds = [round_of(name) for name, files in listing.items() if manifests.FILE in files]
        oldest = min((number for number in rounds if number is not None), default=0)
        for name, files in listing.items():
            if manifests.FILE not in files and (round_of(name) or 0) < oldest:
                with contextlib.suppress(FileNotFoundError), _only_os_errors():
                    self._fs.rm(self._path(name), recursive=True)

    def _path(self, *parts: str) -> str:
        return "/".join((self._root, *parts))

    def _listing(self) -> dict[str, set[str]]:
        """The files of everything that has a checkpoint's name."""
        with _only_os_errors():
            self._fs.invalidate_cache()
            try:
                paths = self._fs.find(self._root, withdirs=True)  # empty ones, too
            except FileNotFoundError:
                return {}
        found: dict[str, set[str]] = {}
        depth = len([part for part in self._root.split("/") if part])
        for path in paths:
            name, *rest = str(path).strip("/").split("/")[depth:] or [""]
            # What lies deeper is in a shard's folder, say.
            if round_of(name) is not None and len(rest) < 2:
                found.setdefault(name, set()).update(rest)
        return found


class RemoteDraft:
    """Files under a name that nobody else uses."""

    def __init__(self, fs: Any, path: str) -> None:
        self._fs, self._path = fs, path
        with _only_os_errors():
            self._fs.makedirs(path, exist_ok=True)

    def write(self, file: str, data: bytes) -> None:
        with _only_os_errors():
            self._fs.pipe_file(f"{self._path}/{file}", data)

    def commit(self, manifest: bytes) -> None:
        self.write(manifests.FILE, manifest)

    def abandon(self) -> None:
        with contextlib.suppress(OSError), _only_os_errors():
            self._fs.rm(self._path, recursive=True)

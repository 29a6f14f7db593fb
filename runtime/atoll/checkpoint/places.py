"""Where checkpoints lie: a folder, or any URL of fsspec. Thin shells around files.

    place = open_place("/data/run7")            # also file:///data/run7
    place = open_place("s3://bucket/run7")      # with fsspec and its driver

Thread: one at a time per object. All errors are OSError. A checkpoint that `names` lists is
complete: in a folder it was renamed there as a whole, elsewhere its manifest was written last.
"""

from __future__ import annotations

from typing import Protocol
from urllib.parse import unquote, urlsplit

from atoll.errors import ConfigError


class Draft(Protocol):
    """A checkpoint being written: `write` each file, then `commit`; or `abandon` it."""

    def write(self, file: str, data: bytes) -> None: ...
    def commit(self, manifest: bytes) -> None:
        """Durable and listed when it returns."""

    def abandon(self) -> None:
        """Removes what was written, as far as that is possible. Idempotent; raises nothing."""


class Place(Protocol):
    """A folder of checkpoints."""

    url: str
    reads_are_cheap: bool
    """Whether a checkpoint that was just written can be read back without a network."""

    def names(self) -> list[str]:
        """The complete checkpoints, in no order; none when nothing was written yet."""

    def folders(self) -> list[str]:
        """The names of all that lies in it, checkpoints or not."""

    def draft(self, name: str) -> Draft: ...
    def read(self, name: str, file: str) -> bytes:
        """Raises FileNotFoundError when it is missing."""

    def size(self, name: str, file: str) -> int: ...
    def delete(self, name: str) -> None:
        """A delete that is cut short leaves nothing that `names` lists."""

    def clean(self) -> None:
        """Removes what writers left that died."""


def open_place(url: str) -> Place:
    """Touches nothing yet. Raises ConfigError for a URL that cannot be used here."""
    scheme, colons, _ = url.partition("://")
    if not url:
        raise ConfigError("checkpoint_url is empty; name a folder or a URL such as s3://bucket/run")
    if not colons or scheme == "file":
        from atoll.checkpoint.local import LocalPlace

        return LocalPlace(unquote(urlsplit(url).path) if colons else url)
    from atoll.checkpoint.remote import RemotePlace

    return RemotePlace(url)

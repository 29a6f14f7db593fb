"""What a checkpoint says of itself: `manifest.json`. Pure functions; docs/checkpoints.md lists it.

The manifest carries the size and the digest of every file, and a digest of itself, so that a cut
file, a flipped byte and a missing file are all found out before anything is restored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import xxhash

from atoll.checkpoint.rules import is_file_name

FILE = "manifest.json"
FORMAT = 1
MAX_BYTES = 64 << 20
"""Of a manifest: hundreds of thousands of tensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """A safetensors file: the tensors in it (name to [dtype, shape]), by their group."""

    name: str
    group: str
    nbytes: int
    digest: str
    tensors: dict[str, list[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Which part of a checkpoint this is, where islands are of several processes. line: what has
    one beginning in common (atoll.checkpoint.shards). whole: the newest round of which the writer
    saw the parts of all shards, before it wrote this one; 0: of none."""

    shard: int
    shards: int
    line: str
    whole: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Where a shard's part of a tensor lies. shape: of the whole tensor. offsets: where the part
    begins in it, by dimension; None: it is split in a way that a box cannot say."""

    shape: tuple[int, ...]
    offsets: tuple[int, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """`values`: the method's small values (round, ledger, identity), JSON. `part`: None for all of
    it, that of an island of one process. `pieces`: of a part, the parameters of which it has only a
    piece; None: not known."""

    job: str
    round: int
    revision: int
    epoch: int
    created_s: float
    island: str
    software: str
    values: dict[str, Any]
    files: tuple[FileEntry, ...]
    part: Part | None = None
    pieces: dict[str, Piece] | None = None

    @property
    def nbytes(self) -> int:
        """Of all files together."""
        return sum(entry.nbytes for entry in self.files)


def digest(data: bytes | memoryview) -> str:
    """xxh3, 128 bits, hex: finds accidents, not forgers."""
    return xxhash.xxh3_128_hexdigest(data)


def encode(manifest: Manifest) -> bytes:
    """JSON for people and programs, its own digest last."""
    value = {"format": FORMAT, **asdict(manifest)}
    for name in ("part", "pieces"):
        if value[name] is None:
            del value[name]
    value["digest"] = digest(_canonical(value))
    return (json.dumps(value, indent=1) + "\n").encode()


def decode(data: bytes) -> Manifest:
    """Raises ValueError with one clause that says what is wrong with these bytes."""
    try:
        value = json.loads(data)
        if not isinstance(value, dict):
            raise ValueError("not a manifest")
        if value.get("format") != FORMAT:
            raise ValueError(f"format {value.get('format')}, this release reads {FORMAT}")
        found = value.pop("digest", None)
        if found != digest(_canonical(value)):
            raise ValueError("the manifest's digest does not match")
        return _parsed(value)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise ValueError("the manifest is not JSON (cut off?)") from None
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"the manifest lacks a field or has a wrong one: {error!r}") from None


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _parsed(value: Mapping[str, Any]) -> Manifest:
    manifest = Manifest(
        job=str(value["job"]),
        round=int(value["round"]),
        revision=int(value["revision"]),
        epoch=int(value["epoch"]),
        created_s=float(value["created_s"]),
        island=str(value["island"]),
        software=str(value["software"]),
        values=dict(value["values"]),
        files=tuple(
            FileEntry(
                name=str(entry["name"]),
                group=str(entry["group"]),
                nbytes=int(entry["nbytes"]),
                digest=str(entry["digest"]),
                tensors={str(k): [str(v[0]), list(v[1])] for k, v in entry["tensors"].items()},
            )
            for entry in value["files"]
        ),
        part=_part(value.get("part")),
        pieces=_pieces(value.get("pieces")),
    )
    names = [entry.name for entry in manifest.files]
    wrong = next((name for name in names if not is_file_name(name)), None)
    if wrong is not None:
        raise ValueError(f"the manifest names a file {wrong!r}")
    if len(set(names)) != len(names) or manifest.round < 0 or not math.isfinite(manifest.created_s):
        raise ValueError("the manifest names a file twice, or its numbers make no sense")
    return manifest


def _part(value: Mapping[str, Any] | None) -> Part | None:
    if value is None:
        return None
    return Part(
        shard=int(value["shard"]),
        shards=int(value["shards"]),
        line=str(value["line"]),
        whole=int(value["whole"]),
    )


def _pieces(value: Mapping[str, Any] | None) -> dict[str, Piece] | None:
    if value is None:
        return None
    return {
        str(name): Piece(
            shape=tuple(map(int, piece["shape"])),
            offsets=None if piece["offsets"] is None else tuple(map(int, piece["offsets"])),
        )
        for name, piece in value.items()
    }

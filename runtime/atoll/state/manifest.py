"""What a revision of the shared state consists of: small values, tensors, chunk digests.

The manifest travels as canonical JSON (buffer 0 of a published state), the tensors as raw
little-endian fp32 (buffers 1, 2, ...). Equal states have equal manifests, byte for byte, so the
digest of a manifest stands for the whole state.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import xxhash

if TYPE_CHECKING:
    import torch

CHUNK_BYTES = 1 << 20
"""A chunk is compared, fetched and verified as a whole. Smaller ones cost more requests, larger
ones send more than has changed. docs/performance.md, "Shared state"."""

MAX_MANIFEST_BYTES = 16 << 20
"""Enough for the digests of 400 GB of state in such chunks."""

FORMAT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEntry:
    """One buffer: its name, its size in bytes, the digests of its chunks (hex, xxh3 128)."""

    name: str
    nbytes: int
    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """`revision`: ops of the method's channel absorbed. `values`: JSON, decided by the method."""

    revision: int
    values: dict[str, Any]
    tensors: tuple[TensorEntry, ...]


def chunks(nbytes: int) -> list[tuple[int, int]]:
    """(offset, length) of the chunks of a buffer."""
    return [(at, min(CHUNK_BYTES, nbytes - at)) for at in range(0, nbytes, CHUNK_BYTES)]


def digest(data: bytes | memoryview) -> str:
    """xxh3, 128 bits, hex. Finds accidents; donors are authenticated by their links."""
    return xxhash.xxh3_128_hexdigest(data)


@cache
def digest_of_zeros(length: int) -> str:
    """Of a chunk of zeros: an optimizer's state before its first step has nothing else."""
    return digest(bytes(length))


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous host tensor, not copied."""
    array: Any = tensor.numpy()
    return memoryview(array).cast("B")


def describe(name: str, data: memoryview) -> TensorEntry:
    """The entry of a buffer, with the digests computed."""
    return TensorEntry(
        name=name,
        nbytes=data.nbytes,
        digests=tuple(digest(data[at : at + length]) for at, length in chunks(data.nbytes)),
    )


def encode(manifest: Manifest) -> bytes:
    """Canonical JSON: sorted keys, no spaces."""
    value = {
        "format": FORMAT,
        "revision": manifest.revision,
        "values": manifest.values,
        "tensors": [
            {"name": entry.name, "nbytes": entry.nbytes, "digests": list(entry.digests)}
            for entry in manifest.tensors
        ],
    }
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def decode(data: bytes) -> Manifest:
    """Raises ValueError with one sentence when the bytes are not a manifest."""
    try:
        value = json.loads(data)
        if value["format"] != FORMAT:
            raise ValueError(f"manifest of format {value['format']}, not {FORMAT}")
        tensors = tuple(
            TensorEntry(
                name=str(entry["name"]),
                nbytes=int(entry["nbytes"]),
                digests=tuple(str(text) for text in entry["digests"]),
            )
            for entry in value["tensors"]
        )
        manifest = Manifest(
            revision=int(value["revision"]), values=dict(value["values"]), tensors=tensors
        )
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"not a manifest: {error!r}") from None
    for entry in manifest.tensors:
        if entry.nbytes < 0 or len(entry.digests) != len(chunks(entry.nbytes)):
            raise ValueError(f"{entry.name}: {len(entry.digests)} digests for {entry.nbytes} bytes")
    return manifest


def majority(manifests: Sequence[bytes]) -> bytes | None:
    """The manifest that most donors hold; among equals the newest revision, then the bytes."""
    if not manifests:
        return None
    votes: dict[bytes, int] = {}
    for data in manifests:
        votes[data] = votes.get(data, 0) + 1
    return max(votes, key=lambda data: (votes[data], decode(data).revision, data))

"""Manifests: round trip, refusals, majority."""

from __future__ import annotations

import json

import pytest

from atoll.state.manifest import CHUNK_BYTES, Manifest, decode, describe, encode, majority


def made(revision: int, fill: int = 1) -> bytes:
    data = memoryview(bytes([fill]) * (CHUNK_BYTES + 5))
    return encode(
        Manifest(revision=revision, values={"round": revision}, tensors=(describe("a", data),))
    )


def test_round_trip() -> None:
    assert encode(decode(made(7))) == made(7)
    assert len(decode(made(7)).tensors[0].digests) == 2


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"[]", b"{}", b'{"format": 2}', json.dumps({"format": 1}).encode()],
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="manifest"):
        decode(data)


def test_digests_must_fit_the_size() -> None:
    value = json.loads(made(1))
    value["tensors"][0]["nbytes"] = 3 * CHUNK_BYTES
    with pytest.raises(ValueError, match="digests"):
        decode(json.dumps(value).encode())


def test_majority_then_newest() -> None:
    assert majority([made(3), made(4), made(3)]) == made(3)
    assert majority([made(3), made(4)]) == made(4)
    assert majority([]) is None

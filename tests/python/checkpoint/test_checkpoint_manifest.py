"""The manifest says what it was made of, or why it cannot be believed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.checkpoint.manifest import FileEntry, Manifest, decode, encode

GOOD = Manifest(
    job="reef",
    round=120,
    revision=121,
    epoch=4,
    created_s=1.5,
    island="island-0",
    software="0.1.0",
    values={"round": 120, "ledger": {"pool": [[0, 4]]}, "loss": 0.1},
    files=(
        FileEntry(
            name="parameters-00000.safetensors",
            group="parameters",
            nbytes=99,
            digest="ab" * 16,
            tensors={"w": ["float32", [3, 4]]},
        ),
    ),
)


def test_there_and_back() -> None:
    assert decode(encode(GOOD)) == GOOD
    assert GOOD.nbytes == 99


@settings(max_examples=300)
@given(st.integers(0, len(encode(GOOD)) - 1), st.integers(0, 7))
def test_a_flipped_bit_is_noticed(at: int, bit: int) -> None:
    data = bytearray(encode(GOOD))
    data[at] ^= 1 << bit
    try:
        found = decode(bytes(data))
    except ValueError:
        return
    assert found == GOOD  # white space, say


@given(st.integers(0, len(encode(GOOD)) - 2))
def test_a_cut_is_noticed(length: int) -> None:
    with pytest.raises(ValueError, match="not JSON"):
        decode(encode(GOOD)[:length])


@given(st.binary(max_size=200))
def test_garbage(data: bytes) -> None:
    with pytest.raises(ValueError, match="manifest"):
        decode(data)


def _forged(**changes: object) -> bytes:
    from atoll.checkpoint import manifest as manifests

    value = json.loads(encode(GOOD)) | changes
    del value["digest"]
    return json.dumps({**value, "digest": manifests.digest(manifests._canonical(value))}).encode()


def test_what_a_digest_does_not_excuse() -> None:
    entry = json.loads(encode(GOOD))["files"][0]
    for changes, text in (
        ({"format": 2}, "format 2, this release reads 1"),
        ({"files": [{**entry, "name": "../../etc/passwd"}]}, "names a file"),
        ({"files": [entry, entry]}, "twice"),
        ({"files": 7}, "wrong one"),
        ({"round": "many"}, "invalid literal"),
        ({"values": None}, "wrong one"),
    ):
        with pytest.raises(ValueError, match=text):
            decode(_forged(**changes))

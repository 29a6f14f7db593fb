"""Byte-level text that every machine has: the source files of Python's own standard library.

Nothing is downloaded. The corpus depends on the interpreter alone, so islands that run the same
Python see the same samples; `Corpus.fingerprint` tells those apart that do not.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

VOCABULARY = 256
"""A token is a byte."""

VALIDATION_ONE_IN = 20
"""One file in so many is held out: 5 %. By file, so that no sentence is in both parts."""

# Packages that were installed later, tests (some distributions leave them out) and what the build
# of the interpreter wrote: all of these differ between machines with the same Python.
SKIPPED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
SKIPPED_PREFIXES = ("config-", "_sysconfigdata", "sitecustomize")

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Two disjoint texts, and a name for exactly these bytes."""

    train: Bytes
    validation: Bytes
    fingerprint: str


class Blocks(Dataset[tuple[Tensor, Tensor]]):
    """The non-overlapping blocks of `block + 1` bytes of a text, and in each the bytes to predict.

    `blocks[i]` is `(x, y)`, both int64[block]; `y[t]` follows `x[t]`.
    """

    def __init__(self, text: Bytes, block: int) -> None:
        if len(text) <= block:
            raise ValueError(f"a text of {len(text)} bytes has no block of {block + 1}")
        self.block = block
        self._rows = text[: len(text) // (block + 1) * (block + 1)].reshape(-1, block + 1)
        # An island whose blocks differ from the job's is refused.
        self.fingerprint = hashlib.sha256(self._rows).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        row = torch.from_numpy(self._rows[index].astype(np.int64))
        return row[:-1], row[1:]


def load(root: Path | None = None, *, max_bytes: int | None = None) -> Corpus:
    """Return the text of all Python files under `root`, the standard library by default.

    `max_bytes` bounds the training text, and the held-out text in proportion. Files come in an
    order given by a hash of their names, so a part of the corpus is a sample of all of it.
    """
    root = root or Path(sysconfig.get_paths()["stdlib"])
    train = _Part(limit=max_bytes)
    validation = _Part(limit=max_bytes and max(1, max_bytes // VALIDATION_ONE_IN))
    for digest, path in sorted((_digest(name), root / name) for name in _names(root)):
        part = validation if digest[-1] % VALIDATION_ONE_IN == 0 else train
        if not part.full:
            part.append(path.read_bytes())
        if train.full and validation.full:
            break
    if not train.text or not validation.text:
        raise ValueError(f"{root} has too few Python files for a corpus")
    return Corpus(
        train=np.frombuffer(train.text, dtype=np.uint8),
        validation=np.frombuffer(validation.text, dtype=np.uint8),
        fingerprint=hashlib.sha256(train.text + b"\0" + validation.text).hexdigest()[:16],
    )


class _Part:
    """A text that grows up to a limit."""

    def __init__(self, *, limit: int | None) -> None:
        self.text = bytearray()
        self._limit = limit

    @property
    def full(self) -> bool:
        return self._limit is not None and len(self.text) >= self._limit

    def append(self, content: bytes) -> None:
        self.text += content
        if self._limit is not None:
            del self.text[self._limit :]


def _names(root: Path) -> list[str]:
    """Return the names of the Python files under `root`, relative to it, with forward slashes."""
    names = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not _skipped(name)]
        names += [
            Path(folder, name).relative_to(root).as_posix()
            for name in files
            if name.endswith(".py") and not _skipped(name)
        ]
    return names


def _skipped(name: str) -> bool:
    return name in SKIPPED_FOLDERS or name.startswith(SKIPPED_PREFIXES)


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()

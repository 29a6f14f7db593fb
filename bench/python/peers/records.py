"""Times of commits in a file, which others read at any time, also after a SIGKILL.

One process writes, with `add`; any number of them read. It needs NumPy alone, so that it runs in
any library's environment.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

ROOM = 1 << 16


class Records:
    """The newest ROOM commits: when (s, monotonic clock), and how many replicas took part."""

    def __init__(self, path: Path) -> None:
        size = (3 + ROOM * 2) * 8
        if not path.exists() or path.stat().st_size != size:
            path.write_bytes(bytes(size))
        self._head = np.memmap(path, dtype=np.float64, mode="r+", shape=(3,))
        self._rows = np.memmap(path, dtype=np.float64, mode="r+", offset=24, shape=(ROOM, 2))

    def begin(self, when_s: float) -> None:
        self._head[0] = when_s

    def add(self, when_s: float, replicas: int) -> None:
        count = int(self._head[1])
        self._rows[count % ROOM] = (when_s, replicas)
        self._head[1] = count + 1

    @property
    def began_s(self) -> float:
        """When it began to join."""
        return float(self._head[0])

    def stop(self, when_s: float) -> None:
        self._head[2] = when_s

    @property
    def stopped_s(self) -> float:
        """When it stopped itself, as it was asked to; 0: it has not."""
        return float(self._head[2])

    @property
    def replicas(self) -> int:
        """Of the newest commit; 0: there was none."""
        count = int(self._head[1])
        return int(self._rows[(count - 1) % ROOM, 1]) if count else 0

    def newest(self, most: int = ROOM // 2) -> np.ndarray:
        """[at most `most`, 2]: time and replicas, oldest first."""
        count = int(self._head[1])
        rows = np.arange(max(0, count - most), count) % ROOM
        return np.array(self._rows[rows])

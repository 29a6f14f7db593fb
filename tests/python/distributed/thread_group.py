"""A process group whose members are threads of this process: nothing of it is global."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist

import atoll
from atoll.distributed import ProcessGroup

PATIENCE_S = 60.0


class Members:
    """Groups by rank."""

    def __init__(self, count: int) -> None:
        self.groups = [ProcessGroup(timeout=timedelta(seconds=30)) for _ in range(count)]
        self._store = dist.HashStore()
        self._formed = itertools.count()

    def __enter__(self) -> Members:
        self.form(range(len(self.groups)))
        return self

    def __exit__(self, *_: object) -> None:
        for group in self.groups:
            group.shutdown()

    def __len__(self) -> int:
        return len(self.groups)

    def form(self, ranks: Any) -> None:
        """These become a group, in this order; the others are left as they are."""
        store = dist.PrefixStore(f"{next(self._formed)}", self._store)
        chosen = [self.groups[rank] for rank in ranks]
        self.each(lambda group, rank: group.configure(store, rank, len(chosen)), groups=chosen)

    def each(
        self,
        part: Callable[[ProcessGroup, int], Any],
        groups: list[ProcessGroup] | None = None,
    ) -> list[Any]:
        """Runs `part(group, rank)` on all members at once; returns their results by rank."""
        chosen = self.groups if groups is None else groups
        with ThreadPoolExecutor(len(chosen)) as pool:
            futures = [pool.submit(part, group, rank) for rank, group in enumerate(chosen)]
            return [future.result(PATIENCE_S) for future in futures]

    def fail(
        self,
        part: Callable[[ProcessGroup, int], Any],
        groups: list[ProcessGroup] | None = None,
    ) -> list[atoll.errors.AtollError]:
        """The errors of what must fail on all members."""

        def caught(group: ProcessGroup, rank: int) -> atoll.errors.AtollError:
            with pytest.raises(atoll.errors.AtollError) as raised:
                part(group, rank)
            return raised.value

        return self.each(caught, groups)


Form = Callable[[int], Members]

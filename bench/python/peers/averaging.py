"""Means of 64 MiB among peers: hivemind's averager, atoll's all-reduce, gloo's."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

from groups import Group, atoll_group, gloo_group, hivemind_group

BYTES = 64 << 20

AVERAGERS = {
    "atoll": lambda members: atoll_group("shm", members),
    "atoll-tcp": lambda members: atoll_group("tcp", members),
    "gloo": gloo_group,
    "hivemind": hivemind_group,
}


async def average(name: str, members: int, times: int) -> dict[str, Any]:
    """Seconds of each call, of all members."""
    group: AbstractAsyncContextManager[Group] = AVERAGERS[name](members)
    async with group as ready:
        answer = await ready.measure(BYTES, times, 2)
    await asyncio.sleep(0)
    return {"average": answer["times_s"]}

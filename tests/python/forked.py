"""Processes that need not import torch again: forked from one that has.

There is one such server for all tests of a process, so what it imports is the same for all.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext

PRELOADED = [
    "torch",
    "xxhash",
    "atoll.checkpoint.read",
    "atoll.checkpoint.write",
    "atoll.control.client",
    "atoll.elastic.island",
    "atoll.session",
    "atoll.state.tensors",
]


def forkserver() -> ForkServerContext:
    """The context; its processes import what is left, the module of their function for one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context

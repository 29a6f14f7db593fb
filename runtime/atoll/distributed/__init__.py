"""A backend for torch.distributed. Importing this makes it known:

    import torch.distributed as dist

    import atoll.distributed

    dist.init_process_group("atoll")

docs/pytorch.md has the rest.
"""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from atoll.distributed.group import ProcessGroup

__all__ = ["NAME", "ProcessGroup", "register"]

NAME = "atoll"


def _create(asked: Any, options: Any) -> ProcessGroup:
    group = ProcessGroup(timeout=asked.timeout, options=options)
    group.configure(asked.store, asked.group_rank, asked.group_size)
    return group


def register() -> None:
    """Makes `init_process_group("atoll")` possible; importing this package does it."""
    if NAME.upper() not in dist.Backend._plugins:
        dist.Backend.register_backend(NAME, _create, extended_api=True, devices=["cpu", "cuda"])


register()

"""How the shards of an island tell each other what they found, before they begin.

They have no links with one another, but `torch.distributed` joins them (FSDP, DDP), and its store
carries small texts. No collective is used: who waits for a shard that does not come can give up.
Thread: the user's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from atoll import errors

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

_LOOK_S = 0.02

Ended = Callable[[], errors.AtollError | None]
"""What has ended the session, if something has."""


class Meeting:
    """Of the shards of one island, by the island's name."""

    def __init__(
        self, island: str, shard: int, shards: int, *, timeout_s: float, ended: Ended
    ) -> None:
        """timeout_s: how long the others may take for each thing that all tell."""
        self._island, self._shard, self._shards = island, shard, shards
        self._timeout_s, self._ended = timeout_s, ended

    def gather(self, produce: Callable[[], Any]) -> list[Any]:
        """What all shards produce (JSON), by shard; all must call it equally often.

        Raises what `produce` does; CheckpointError when that of another shard has raised, or one
        has said nothing in time; MisuseError without torch.distributed; and what has ended the
        session.
        """
        store = _store(self._shards)
        # A shard's n-th text belongs to the others' n-th.
        number = store.add(f"atoll/{self._island}/{self._shard}", 1)
        keys = [f"atoll/{self._island}/{number}/{shard}" for shard in range(self._shards)]
        try:
            value = produce()
        except errors.AtollError as error:
            store.set(keys[self._shard], json.dumps({"error": str(error)}))
            raise
        store.set(keys[self._shard], json.dumps({"value": value}))
        end = time.monotonic() + self._timeout_s
        found = []
        for shard, key in enumerate(keys):
            told = json.loads(self._text(store, shard, key, end))
            if "error" in told:
                raise errors.CheckpointError(
                    f"shard {shard} of this island cannot begin: {told['error']}"
                )
            found.append(told["value"])
        return found

    def _text(self, store: Store, shard: int, key: str, end: float) -> bytes:
        try:
            while not store.check([key]):
                ended = self._ended()
                if ended is not None:
                    raise ended
                if time.monotonic() > end:
                    raise errors.CheckpointError(
                        f"shard {shard} of this island has not said within {self._timeout_s:g} s "
                        "from which checkpoint it can begin; all shards must make the same method "
                        "or optimizer, and begin together; see that shard's log"
                    )
                time.sleep(_LOOK_S)
            return bytes(store.get(key))
        except RuntimeError as error:  # torch's own, when the process that serves the store is gone
            if isinstance(error, errors.AtollError):
                raise
            raise errors.CheckpointError(
                f"the shards of this island cannot reach each other any more: {error}"
            ) from error


def _store(shards: int) -> Store:
    import torch.distributed as dist

    joined = dist.is_available() and dist.is_initialized()
    if not joined or dist.get_world_size() < shards:
        raise errors.MisuseError(
            f"checkpoint_url: the {shards} processes of this island must agree on a checkpoint; "
            "call torch.distributed.init_process_group before you make the method or the optimizer"
        )
    from torch.distributed import distributed_c10d

    return distributed_c10d._get_default_store()

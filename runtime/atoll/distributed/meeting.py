"""How the members of a fixed group find each other: through torch's store, which they share.

Every member writes one record and reads everybody's. Records are of one generation: how often the
member of that rank has been formed from this store, so that a group can be formed again from it.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from atoll import errors

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a member tells the others."""

    peer: bytes  # 16, its engine's id
    size: int  # members that it expects
    endpoints: tuple[tuple[str, int], ...]

    @property
    def address(self) -> str:
        """The first, for people."""
        host, port = self.endpoints[0]
        return f"{host}:{port}"


def encode(record: Record) -> str:
    """A record as text."""
    return json.dumps(
        {
            "peer": record.peer.hex(),
            "size": record.size,
            "endpoints": record.endpoints,
        }
    )


def decode(text: bytes | str) -> Record:
    """The record that `encode` wrote. Raises CannotJoin for anything else."""
    try:
        fields = json.loads(text)
        record = Record(
            peer=bytes.fromhex(fields["peer"]),
            size=int(fields["size"]),
            endpoints=tuple((str(host), int(port)) for host, port in fields["endpoints"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise errors.CannotJoin(
            f"the store holds something else under a member's key: {error}"
        ) from None
    if len(record.peer) != 16 or not record.endpoints:
        raise errors.CannotJoin("the store holds an impossible record under a member's key")
    return record


def new_identity() -> tuple[bytes, bytes]:
    """A peer's id and a secret."""
    return secrets.token_bytes(16), secrets.token_bytes(32)


class Meeting:
    """One member's part in it."""

    def __init__(self, store: Store, *, rank: int, size: int, timeout_s: float) -> None:
        """store: of this group alone (a PrefixStore). timeout_s: for all of the meeting."""
        self._store = store
        self._rank = rank
        self._size = size
        self._end_s = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._generation = store.add(f"generation/{rank}", 1)

    @property
    def left_s(self) -> float:
        """Seconds until the meeting must be over."""
        return self._end_s - time.monotonic()

    def secret_of_first(self, own: bytes) -> bytes:
        """Rank 0's secret, whatever the others had in mind."""
        if self._rank == 0:
            self._store.set(self._key("secret"), own.hex())
            return own
        self._await([self._key("secret")])
        return bytes.fromhex(self._store.get(self._key("secret")).decode())

    def exchange(self, own: Record) -> list[Record]:
        """Everybody's records, by rank.

        Raises DeadlineExceeded, which names who did not come, and CannotJoin.
        """
        keys = [self._key(str(rank)) for rank in range(self._size)]
        self._store.set(keys[self._rank], encode(own))
        self._await(keys)
        records = [decode(text) for text in self._store.multi_get(keys)]
        for rank, record in enumerate(records):
            if record.size != self._size:
                raise errors.CannotJoin(
                    f"rank {rank} forms a group of {record.size} members, rank {self._rank} one "
                    f"of {self._size}; give both the same world size, or stores of their own"
                )
        return records

    def _key(self, name: str) -> str:
        return f"{self._generation}/{name}"

    def _await(self, keys: list[str]) -> None:
        from torch.distributed import DistStoreError

        try:
            self._store.wait(keys, timedelta(seconds=max(0.001, self.left_s)))
        except DistStoreError:
            missing = [key for key in keys if not self._store.check([key])]
            names = [f"rank {key.rpartition('/')[2]}" for key in missing]
            if not missing:
                return
            who = ", ".join(names).replace("rank secret", "rank 0")
            raise errors.DeadlineExceeded(
                f"rank {self._rank} met not all {self._size} members within "
                f"{1e3 * self._timeout_s:g} ms: {who} did not come (who forms a group anew with "
                "other members needs a store with another prefix)"
            ) from None

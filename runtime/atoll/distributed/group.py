"""torch.distributed's process group over the core: `atoll.distributed.ProcessGroup`."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, cast

from torch.distributed.distributed_c10d import PrefixStore, Store

from atoll import errors
from atoll.config import session_settings
from atoll.distributed.arguments import nanos_of
from atoll.distributed.calls import TorchCalls
from atoll.distributed.fixed import FixedGroup
from atoll.distributed.host import HostCalls
from atoll.distributed.pairs import PairCalls
from atoll.distributed.staging import Line

DEFAULT_TIMEOUT = timedelta(minutes=30)
FLUSH_S = 5.0


class ProcessGroup(TorchCalls):
    """A group of processes, or of threads, that torch.distributed's functions take.

        dist.init_process_group("atoll")                       # one of all processes

        group = atoll.distributed.ProcessGroup()               # by hand
        group.configure(store, rank, world_size)               # again and again, for other members

    A member that is gone ends the group: what is in flight fails at once with GroupBroken, which
    names it, and so does every later call, until `configure`. A deadline fails one op, on all
    members alike, and the group goes on.

    Thread: calls of one group must not overlap; works may be waited for anywhere.
    """

    def __init__(
        self,
        *,
        timeout: timedelta = DEFAULT_TIMEOUT,
        options: Mapping[str, object] | None = None,
    ) -> None:
        """timeout: of every op that has none of its own. options: settings by name, as
        `atoll.join` takes them (bind_host, tls_dir, ...); those not given come from ATOLL_*.
        Raises ConfigError."""
        super().__init__(dict(options or {}))
        self._timeout_ns = nanos_of(timeout)
        self._settings = session_settings(self._options)
        self._fixed: FixedGroup | None = None
        self._host: HostCalls | None = None
        self._pairs: PairCalls | None = None
        self._splits = 0
        self._line = Line()
        self._dropped: weakref.finalize[..., Any] | None = None

    # --- life -------------------------------------------------------------------------------------

    def configure(self, store: Store, rank: int, world_size: int) -> None:
        """Forms the group of these members; one that there was is over, with its ops.

        store: where the members meet; of members that were not all here the last time, with a
        prefix of its own. Waits for all of them, `form_timeout_s` or the group's timeout at most.
        Raises DeadlineExceeded and CannotJoin, which say who is missing; then the group is closed.
        """
        self._leave("it is formed anew")
        limit_s = min(self._settings.form_timeout_s, self._timeout_ns / 1e9)
        fixed = FixedGroup.form(
            store, rank=rank, size=world_size, timeout_s=limit_s, settings=self._settings
        )
        # Who drops a group, or ends without a word, has left it.
        self._dropped = weakref.finalize(self, fixed.close, "dropped")
        self._store, self._splits = store, 0
        self._host, self._pairs = HostCalls(fixed), PairCalls(fixed)
        self._fixed = fixed

    def abort(self) -> None:
        """Fails everything in flight, here with OpAborted, and on all members: it is over."""
        self._leave("aborted", fault=errors.OpAborted("this process group was aborted"))

    def shutdown(self) -> None:
        """Leaves the group; ops in flight fail, but small sends, whose receivers have
        `FLUSH_S` more. Idempotent."""
        if self._pairs is not None and self._fixed is not None and self._fixed.alone is None:
            self._pairs.flush(FLUSH_S)
        self._leave("shut down")

    def split_group(
        self,
        new_ranks: Sequence[int],
        timeout: timedelta | None = None,
        opts: Any = None,
        group_name: str | None = None,
        group_desc: str | None = None,
        device_types: Any = None,
    ) -> ProcessGroup | None:
        """A group of some of this one's ranks, in this order; None for the others.

        Every member calls it; several groups of ranks apart may be made by one call of each.
        """
        self._formed().check()
        self._splits += 1
        if self.rank() not in new_ranks:
            return None
        ranks = "-".join(map(str, new_ranks))
        name = group_name or f"{self.group_name}:split:{self._splits}:{ranks}"
        part = ProcessGroup(
            timeout=timeout or timedelta(microseconds=self._timeout_ns // 1000),
            options=self._options if opts is None else opts,
        )
        part.setGroupName(name)
        part.setGroupDesc(group_desc or f"{self.group_desc}:split:{self._splits}")
        store = PrefixStore(f"split/{self._splits}/{ranks}", self.get_group_store())
        part.configure(store, list(new_ranks).index(self.rank()), len(new_ranks))
        return part

    def errored(self) -> errors.AtollError | None:
        """What ended the group; None while it can be used."""
        return None if self._fixed is None else self._fixed.fault

    def set_timeout(self, timeout: timedelta) -> None:
        """Of ops from now on that have none of their own."""
        self._timeout_ns = nanos_of(timeout)

    _set_default_timeout = set_timeout

    def rank(self) -> int:
        """This member's place."""
        return 0 if self._fixed is None else self._fixed.rank

    def size(self) -> int:
        """Members."""
        return 1 if self._fixed is None else self._fixed.size

    getRank, getSize = rank, size  # what C++ asks

    # --- within -----------------------------------------------------------------------------------

    def _leave(self, why: str, *, fault: errors.AtollError | None = None) -> None:
        if self._fixed is not None:
            self._fixed.close(why, fault=fault)
            if self._dropped is not None:
                self._dropped.detach()
            self._line.close()
            self._line = Line()

    def _formed(self) -> FixedGroup:
        if self._fixed is None:
            raise errors.MisuseError(
                "this process group has no members yet; call configure(store, rank, world_size)"
            )
        return self._fixed

    @property
    def _calls(self) -> HostCalls:
        self._formed().check()
        return cast(HostCalls, self._host)

    @property
    def _pair_calls(self) -> PairCalls:
        self._formed()
        return cast(PairCalls, self._pairs)

"""Leading a job, or standing by: one term after the other, as the store allows.

Thread: the coordinator's loop. A term ends with the leadership, or with a store that fails; what it
had decided and not written is forgotten, and the next one begins from the store.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable

from atoll.control.term import Term, Visible
from atoll.errors import ConfigError
from atoll.membership.coordinator import CoordinatorMachine
from atoll.membership.events import CoordinatorOptions, Snapshot
from atoll.store import Store, StoreUnavailable

logger = logging.getLogger(__name__)

RETRY_S = 0.5
"""Between two attempts at a store that does not answer."""


class Leading:
    """`run` is called once; `term` is there while this process leads."""

    def __init__(
        self,
        options: CoordinatorOptions,
        store: Store,
        *,
        act: Callable[[Visible], None],
        after: Callable[[], None],
        began: Callable[[], None],
        ended: Callable[[], None],
    ) -> None:
        """`act` and `after` are the term's; `began` and `ended` are called around each one."""
        self._options = options
        self._store = store
        self._act, self._after = act, after
        self._began, self._ended = began, ended
        self._leader = ""
        self._away = False  # the store, and it has been said
        self.term: Term | None = None
        self.first = asyncio.Event()
        """Set when this process has led for the first time."""
        self.changes = 0
        """Times that another one was seen to lead than before."""

    async def run(self, address: str) -> None:
        """Leads whenever it can, under this address. Raises ConfigError when the store cannot be
        used at all."""
        while True:
            try:
                snapshot = await self._store.lead(address)
            except StoreUnavailable as error:
                if not self._away:
                    logger.error(
                        "%s; islands train on, but nobody can join, leave or be replaced until it "
                        "answers; trying again",
                        error,
                    )
                self._away = True
                await asyncio.sleep(RETRY_S)
                continue
            self._answered()
            try:
                await self._lead(snapshot, address)
            except StoreUnavailable as error:
                logger.warning("leads no more: %s; stands by", error)
                await asyncio.sleep(RETRY_S)
            except ConfigError:
                raise
            except Exception:
                logger.exception("the term ended by a bug; beginning again from the store")
                await asyncio.sleep(RETRY_S)
            finally:
                self.term = None
                self._ended()
                await self._store.resign()

    async def _lead(self, snapshot: Snapshot | None, address: str) -> None:
        """One term. Raises what ended it."""
        options = self._options
        if snapshot is not None and snapshot.job != options.job:
            raise ConfigError(
                f"the store belongs to job '{snapshot.job}', not '{options.job}'; "
                "name another store or the same job"
            )
        machine = CoordinatorMachine(options, secret=secrets.token_bytes(32), snapshot=snapshot)
        self._began()
        self.term = Term(machine, self._store, self._act, self._after)
        self.first.set()
        if self._store.shared:
            epoch = machine.view.epoch
            logger.info("leads job '%s' from %s: view %d", options.job, address, epoch)
        await self.term.run()

    def observe(self) -> None:
        """Notices who leads; to be called every so often."""
        leader = self._store.leader()
        if leader:
            self._answered()
        if leader and leader != self._leader:
            self.changes += bool(self._leader)
            self._leader = leader
            if self.term is None:
                logger.info("stands by: the leader is at %s", leader)

    def _answered(self) -> None:
        if self._away:
            logger.info("the store answers again: %s", self._store.where)
            self._away = False

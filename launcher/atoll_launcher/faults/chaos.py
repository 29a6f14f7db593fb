"""`atoll chaos`: kills, freezes and cuts off islands of a job of one's own, again and again."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atoll.pb import control_pb2 as pb
from atoll_launcher import exit_codes
from atoll_launcher.exit_codes import LauncherError
from atoll_launcher.faults import cut_off
from atoll_launcher.faults.own_processes import Owned, owned
from atoll_launcher.faults.plan import Fault, Step, steps, victim
from atoll_launcher.watch.observer import fetch_status

if TYPE_CHECKING:
    from atoll.trust.identity import Identity

RETRY_S = 1.0
"""When the coordinator is away, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosRequest:
    """What the command line asks for. spare: members that are left alone at least; here: strike the
    islands of this machine, though the job has others elsewhere; faults: the kinds to choose from;
    None: all that are possible here."""

    address: str
    seed: int
    mtbf_s: float
    duration_s: float | None
    spare: int
    here: bool
    faults: tuple[Fault, ...] | None
    as_json: bool


def run_chaos(request: ChaosRequest, identity: Identity | None) -> int:
    """Returns the exit code when the time is over or the job has ended. Raises LauncherError, above
    all for a job that is not one's own."""
    faults = request.faults or tuple(Fault)
    why_not = cut_off.obstacle() if Fault.CUT in faults else ""
    if why_not and request.faults:
        raise LauncherError(
            f"islands cannot be cut off here: {why_not}; or leave cuts out: --faults kill,freeze"
        )
    if why_not:
        faults = (Fault.KILL, Fault.FREEZE)
        print(f"islands are killed and frozen only, not cut off: {why_not}")
    return asyncio.run(_Chaos(request, identity, faults).run())


class _Chaos:
    def __init__(
        self, request: ChaosRequest, identity: Identity | None, faults: tuple[Fault, ...]
    ) -> None:
        self._request = request
        self._identity = identity
        self._faults = faults
        self._began_s = time.monotonic()
        self._held: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> int:
        request = self._request
        own, _ = await self._own_members()  # refuse at once what is not ours
        if not own and request.here:
            raise LauncherError(
                "no member of the job is a process of yours on this machine; run chaos --here "
                "where one runs, as the user who started it"
            )
        named = ",".join(self._faults)
        whom = f"; upon {', '.join(one.label for one in own)}, here" if request.here else ""
        print(
            f"chaos in the job at {request.address}: seed {request.seed}, a fault every "
            f"{request.mtbf_s:g} s in the mean ({named}){whom}; "
            "Ctrl-C ends it and mends what is held",
            flush=True,
        )
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
        try:
            for step in steps(request.seed, request.mtbf_s, self._faults):
                if request.duration_s is not None and step.at_s > request.duration_s:
                    await self._until(request.duration_s)
                    break
                await self._until(step.at_s)
                if not await self._strike(step):
                    return exit_codes.OK
        except asyncio.CancelledError:
            return 143
        finally:
            for held in self._held.values():
                held.cancel()
            await asyncio.gather(*self._held.values(), return_exceptions=True)
        return exit_codes.OK

    async def _until(self, at_s: float) -> None:
        await asyncio.sleep(max(0.0, self._began_s + at_s - time.monotonic()))

    async def _own_members(self) -> tuple[list[Owned], int]:
        """Members that may be struck; how many islands are members at all. Raises
        LauncherError."""
        status = await fetch_status(self._request.address, self._identity)
        mine, others = owned([p for p in status.peers if p.info.endpoints])
        if others and not self._request.here:
            raise LauncherError(
                f"{', '.join(others[:5])} {'is' if len(others) == 1 else 'are'} not of your "
                "processes on this machine; chaos is for a job of which every island is: run it "
                "where all of them run, as the user who started them; or strike those of this "
                "machine alone: --here"
            )
        members = {peer.info.island for peer in status.peers if peer.info.id in set(status.members)}
        return [one for one in mine if _is_member(status, one)], len(members)

    async def _strike(self, step: Step) -> bool:
        """False: the job is over."""
        try:
            members, count = await self._own_members()
        except LauncherError as error:
            if error.code != exit_codes.CANNOT_JOIN:
                raise
            self._say(step, "", "the job is over, or its coordinator away")
            return False
        chosen = victim(step, [one for one in members if one.pid not in self._held])
        if chosen is None or count <= self._request.spare:
            none = f"{count} members" + (", none to strike here" if chosen is None else "")
            self._say(step, "", f"nobody: {none}, --spare {self._request.spare}")
            return True
        with contextlib.suppress(ProcessLookupError):
            if step.fault is Fault.KILL:
                os.kill(chosen.pid, signal.SIGKILL)
                self._say(step, chosen.label, f"killed process {chosen.pid}")
            else:
                self._held[chosen.pid] = asyncio.create_task(self._hold(step, chosen))
        return True

    async def _hold(self, step: Step, whom: Owned) -> None:
        holding = _frozen(whom.pid) if step.fault is Fault.FREEZE else self._cut(step, whom)
        word = "froze" if step.fault is Fault.FREEZE else "cut off"
        try:
            self._say(step, whom.label, f"{word} process {whom.pid} for {step.hold_s:g} s")
            with contextlib.suppress(ProcessLookupError):
                async with holding:
                    await asyncio.sleep(step.hold_s)
        finally:
            self._held.pop(whom.pid, None)

    @contextlib.asynccontextmanager
    async def _cut(self, step: Step, whom: Owned) -> AsyncIterator[None]:
        cut = cut_off.Cut(whom.pid)
        again = asyncio.create_task(_keep(cut))
        try:
            yield
        finally:
            again.cancel()
            await asyncio.gather(again, return_exceptions=True)
            count = cut.sockets
            cut.mend()
            if count < 2:
                note = "it had no TCP link but to the coordinator: ATOLL_SHARED_MEMORY=0 makes some"
                self._say(step, whom.label, note)

    def _say(self, step: Step, whom: str, text: str) -> None:
        now_s = time.monotonic() - self._began_s
        if self._request.as_json:
            fields = {
                "number": step.number,
                "at_s": round(now_s, 3),
                "fault": step.fault.value,
                "island": whom,
                "hold_s": step.hold_s,
                "message": text,
            }
            print(json.dumps(fields), flush=True)
        else:
            print(f"{now_s:8.1f} s  #{step.number:<3} {whom or '-':<14} {text}", flush=True)


def _is_member(status: pb.StatusReply, one: Owned) -> bool:
    members = set(status.members)
    return any(
        peer.info.id in members and (peer.info.island, peer.info.shard) == (one.island, one.shard)
        for peer in status.peers
    )


async def _keep(cut: cut_off.Cut) -> None:
    while True:
        cut.refresh()
        await asyncio.sleep(cut_off.POLL_S)


@contextlib.asynccontextmanager
async def _frozen(pid: int) -> AsyncIterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def listed(seed: int, mtbf_s: float, faults: Sequence[Fault], duration_s: float) -> list[Step]:
    """The faults of so many seconds, for --dry-run."""
    return list(
        itertools.takewhile(lambda step: step.at_s <= duration_s, steps(seed, mtbf_s, faults))
    )

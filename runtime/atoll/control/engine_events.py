"""The native engine's events as the peer's machine knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atoll.membership.messages import Counters
from atoll.membership.peer_events import EngineFenced, EngineInstalled, LinkDown, LinkUp

if TYPE_CHECKING:
    from atoll import _core


def from_engine(event: _core.Event) -> LinkUp | LinkDown | EngineFenced | EngineInstalled | int:
    """An op's number stands for its end, which concerns the session and not the machine."""
    # By name, so that a test's engine needs no native module.
    fields: Any = event
    match type(event).__name__:
        case "OpEnded":
            return int(fields.op)
        case "LinkUp":
            return LinkUp(peer=fields.peer)
        case "LinkDown":
            return LinkDown(peer=fields.peer, reason=fields.reason, message=fields.message)
        case "Fenced":
            progress = {
                channel: Counters(started=started, done=done, committed=committed)
                for channel, (started, done, committed) in fields.progress.items()
            }
            return EngineFenced(attempt=fields.attempt, epoch=fields.epoch, progress=progress)
        case "Installed":
            return EngineInstalled(epoch=fields.epoch, member=fields.member)
        case name:
            raise TypeError(f"unknown event of the engine: {name}")

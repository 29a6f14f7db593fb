"""Everything that atoll raises.

    AtollError
    ├── MisuseError (ValueError)        the caller can mend it; never worth a retry
    │   ├── ConfigError                 unknown key, impossible value
    │   ├── TensorError                 dtype or layout that is not supported
    │   └── MismatchError               members disagree about an op (kind, size, dtype, ...)
    └── RuntimeFault (RuntimeError)     what peers, networks and machines do
        ├── CannotJoin                  coordinator unreachable, job or version mismatch
        ├── Expelled                    the others went on without this peer
        ├── DeadlineExceeded            an op or a wait took longer than allowed
        ├── ViewChanged                 members came or went, and the op was made for those before
        ├── OpAborted                   somebody aborted the op, on all members alike
        ├── PeerLost                    a named partner is gone
        ├── GroupBroken                 a process group has lost a member, and is over
        ├── NotFinite                   this island's parameters are not, again and again
        ├── StateUnavailable            no member holds the shared state asked for
        ├── GateClosed                  an elastic island's new layout was refused; nothing changed
        ├── CheckpointError             there are checkpoints, and none can be restored
        └── SessionClosed               the session was closed, here or by the operator
            ├── Drained                 this island has left, as it was asked to
            └── JobStopped              the whole job was stopped

`retryable` says whether trying the same thing again can help. `final` (CannotJoin, Expelled):
starting the island again cannot, as it is not wanted any more.
"""

from __future__ import annotations


class AtollError(Exception):
    """The root of the tree."""

    retryable: bool = False


class MisuseError(AtollError, ValueError):
    """The caller can mend it."""


class ConfigError(MisuseError):
    """A setting is unknown or impossible."""


class TensorError(MisuseError):
    """A tensor of a dtype or layout that is not supported."""


class MismatchError(MisuseError):
    """Members disagree about an op."""


class RuntimeFault(AtollError, RuntimeError):
    """What peers, networks and machines do."""


class CannotJoin(RuntimeFault):
    """The job cannot be joined. `final`: nor by an island that is started again."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class Expelled(RuntimeFault):
    """The others went on without this peer. `reason`: one word for why; `final`: for good."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"expelled from the job ({reason}): {message}")
        self.reason = reason
        self.final = reason in ("revoked", "killed")


class DeadlineExceeded(RuntimeFault):
    """An op or a wait took longer than it was allowed to."""

    retryable = True


class ViewChanged(RuntimeFault):
    """Members came or went before an op whose sizes or ranks were made for the view before.

    Every member gets it, its inputs are intact, and `Session.view` is the new view by then.
    `before` and `after`: members of the view that the op was made for, and of the one that it met;
    0 when not known here.
    """

    retryable = True

    def __init__(self, what: str, before: int, after: int) -> None:
        change = f" from {before} to {after} members" if before and after else ""
        super().__init__(f"{what}: the view changed{change} while it was under way; call it again")
        self.before = before
        self.after = after


class OpAborted(RuntimeFault):
    """Somebody aborted the op."""

    retryable = True


class PeerLost(RuntimeFault):
    """A named partner is gone.

    `peer` and `reason` are texts; `after_s`: seconds from the op's start until it was known.
    """

    retryable = True

    def __init__(self, peer: str, reason: str, after_s: float) -> None:
        super().__init__(f"lost {peer} ({reason}) after {after_s:.3f} s")
        self.peer = peer
        self.reason = reason
        self.after_s = after_s


class GroupBroken(RuntimeFault):
    """A process group has lost a member: all its ops fail, until it is configured anew.

    `rank` is the member, `reason` one word for what was seen of its end (died, reset, silent, bye,
    unreachable, protocol).
    """

    def __init__(self, rank: int, address: str, reason: str, message: str) -> None:
        super().__init__(f"Connection closed by peer rank {rank} ({address}): {message}")
        self.rank = rank
        self.reason = reason


class NotFinite(RuntimeFault):
    """This island's parameters are not finite, again and again."""


class StateUnavailable(RuntimeFault):
    """No member holds the shared state asked for."""

    retryable = True


class GateClosed(RuntimeFault):
    """A change of layout was refused: what workers hold is not one state. Nothing was changed.

    `faults`: what is wrong, a line each.
    """

    retryable = True

    def __init__(self, faults: list[str]) -> None:
        more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
        super().__init__(f"the new layout cannot be used: {'; '.join(faults[:3])}{more}")
        self.faults = tuple(faults)


class CheckpointError(RuntimeFault):
    """There are checkpoints, and none of them can be restored."""


class SessionClosed(RuntimeFault):
    """The session was closed."""


class Drained(SessionClosed):
    """This island has left the job, as it was asked to."""


class JobStopped(SessionClosed):
    """The whole job was stopped."""

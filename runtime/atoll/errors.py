"""Everything that atoll raises.

    AtollError
    ├── MisuseError (ValueError)        the caller can mend it; never worth a retry
    │   ├── ConfigError                 unknown key, impossible value
    │   ├── TensorError                 dtype or layout that is not supported
    │   └── MismatchError               members disagree about an op (kind, size, plan)
    └── RuntimeFault (RuntimeError)     what peers, networks and machines do
        ├── CannotJoin                  coordinator unreachable, job or version mismatch
        ├── Expelled                    the others went on without this peer
        ├── DeadlineExceeded            an op or a wait took longer than allowed
        ├── OpAborted                   somebody aborted the op, on all members alike
        ├── PeerLost                    a named partner is gone
        ├── StateUnavailable            no member holds the shared state asked for
        └── SessionClosed               the session was closed, here or by the operator

`retryable` says whether trying the same thing again can help.
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
    """The job cannot be joined."""


class Expelled(RuntimeFault):
    """The others went on without this peer."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"expelled from the job ({reason}): {message}")
        self.reason = reason


class DeadlineExceeded(RuntimeFault):
    """An op or a wait took longer than it was allowed to."""

    retryable = True


class OpAborted(RuntimeFault):
    """Somebody aborted the op."""

    retryable = True


class PeerLost(RuntimeFault):
    """A named partner is gone."""

    retryable = True

    def __init__(self, peer: str, reason: str, after_s: float) -> None:
        super().__init__(f"lost {peer} ({reason}) after {after_s:.3f} s")
        self.peer = peer
        self.reason = reason
        self.after_s = after_s


class StateUnavailable(RuntimeFault):
    """No member holds the shared state asked for."""

    retryable = True


class SessionClosed(RuntimeFault):
    """The session was closed."""

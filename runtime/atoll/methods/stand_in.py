"""Takes part in a round for an island that is late (docs/design.md, "A straggler is no failure").

Thread: `atoll-stand-in`, of its own; it sleeps until an op is overdue. `watch` and `stop` are the
user's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from atoll import errors

logger = logging.getLogger(__name__)


class StandIn:
    """Watches one op at a time: that which the user's thread is to launch next."""

    def __init__(self, take_part: Callable[[int], int | None], *, after_s: float) -> None:
        """take_part: called with the op that is overdue; returns the next one to watch. after_s:
        from the beginning of a round. Raises MisuseError."""
        if not after_s > 0:
            raise errors.MisuseError(f"straggler_s must be above 0, not {after_s}")
        self._take_part = take_part
        self._after_s = after_s
        self._changed = threading.Condition()
        self._watched: tuple[int, float] | None = None  # (op, when it is overdue)
        self._stopped = False
        self._thread: threading.Thread | None = None

    def watch(self, op: int) -> None:
        """A round has begun, whose op is `op`."""
        with self._changed:
            self._watched = (op, time.monotonic() + self._after_s)
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="atoll-stand-in", daemon=True
                )
                self._thread.start()

    def stop(self) -> None:
        """Nothing is watched any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _run(self) -> None:
        while (op := self._overdue()) is not None:
            try:
                following = self._take_part(op)
            except errors.AtollError as error:
                # The user's thread meets the same at its own next op, if it is still there.
                logger.warning("nobody stands in for this island any more: %s", error)
                return
            with self._changed:
                if self._watched is not None and self._watched[0] == op:
                    due = time.monotonic() + self._after_s
                    self._watched = None if following is None else (following, due)

    def _overdue(self) -> int | None:
        """Waits for an op to be overdue; None: there is nothing to do any more."""
        with self._changed:
            while not self._stopped:
                if self._watched is None:
                    self._changed.wait()
                    continue
                op, due = self._watched
                left = due - time.monotonic()
                if left <= 0:
                    return op
                self._changed.wait(left)
        return None

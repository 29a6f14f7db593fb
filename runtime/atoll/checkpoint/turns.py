"""What of a session is saved, and when it is this island's turn to write it.

A committed round is the same on all members of its view, so the oldest of them writes. Thread: the
user's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atoll.checkpoint.keeper import Checkpoints, Saved


class Turns:
    """Of one session, with checkpoints or without."""

    def __init__(self, is_oldest: Callable[[int], bool]) -> None:
        """is_oldest: whether this island was the oldest of the view of an epoch."""
        self.checkpoints: Checkpoints | None = None
        """Where they go; None: nowhere."""
        self.saved: Saved | None = None
        """The state that they hold."""
        self._is_oldest = is_oldest
        self._epoch = 0  # the view in which the last round ended

    def restore(self, saved: Saved) -> bool:
        """The members start from this island's state: the newest checkpoint, if it is newer.

        Returns whether it was. Raises what `Checkpoints.restore` does.
        """
        if self.checkpoints is None:
            return False
        found = self.checkpoints.restore(saved)
        if found is not None:
            saved.restored(found.manifest.values)
        saved.line = self.checkpoints.line
        return found is not None

    def round_over(self, epoch: int) -> None:
        """A round has committed in view `epoch`: writes it, if it is due and this island's turn."""
        self._epoch = epoch
        checkpoints, saved = self.checkpoints, self.saved
        if checkpoints is None or saved is None or not checkpoints.is_due(saved.round):
            return
        if self._is_oldest(epoch):
            checkpoints.round_over(saved, epoch=epoch)

    def finish(self, timeout_s: float) -> None:
        """Completes what is being written, and writes the last round if it is this island's turn;
        no longer than `timeout_s`."""
        if self.checkpoints is not None:
            mine = self._epoch > 0 and self._is_oldest(self._epoch)
            self.checkpoints.finish(
                self.saved if mine else None, epoch=self._epoch, timeout_s=timeout_s
            )

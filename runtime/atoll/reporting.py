"""What an island tells people through the coordinator: one report, changed field by field.

Thread: any; a lock keeps reports whole and in order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from atoll.config import nearest
from atoll.errors import MisuseError
from atoll.membership.messages import MAX_NOTICE, Report


class Reporter:
    """`send` is called with every new report, under the lock: it must not block."""

    def __init__(self, send: Callable[[Report], None]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._report = Report()

    @property
    def now(self) -> Report:
        """The last report."""
        return self._report

    def update(self, **fields: Any) -> Report:
        """Changes fields of `Report`; others stay. Raises MisuseError for one that there is not."""
        try:
            with self._lock:
                self._report = replace(self._report, **fields)
                self._send(self._report)
                return self._report
        except TypeError:
            known = Report.__dataclass_fields__
            wrong = next((name for name in fields if name not in known), None)
            if wrong is None:
                raise
            near = nearest(wrong, known)
            hint = f", did you mean '{near}'?" if near else ""
            raise MisuseError(f"a report has no field '{wrong}'{hint}") from None

    def notice(self, kind: str, message: str) -> None:
        """Something that people want to know now: the coordinator makes an event of it.

        kind: one of `messages.NOTICES`; others are not passed on.
        """
        with self._lock:
            self._report = replace(
                self._report,
                notice_number=self._report.notice_number + 1,
                notice_kind=kind,
                notice=message[:MAX_NOTICE],
            )
            self._send(self._report)

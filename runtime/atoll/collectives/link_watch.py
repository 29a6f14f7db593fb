"""Lines that are no longer what was measured: seen by what arrives over their links.

In the direct plan each link on a long path has a known part of the measured lines, and the engine
knows what arrives over it while there is something to send (csrc/atoll/net/pacer.h). Where that is
far from the part, the figure of the link is corrected by as much, without a probe: one that shares
a line with ops sees what they leave it. The view that tells the new figures has new parts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atoll._core import EngineStats, LinkStats

logger = logging.getLogger(__name__)

SLOWER, FASTER = 0.7, 1.6
"""Of what was expected: beyond these it is another line."""
LOOK_EVERY_S = 1.0
FIRST_WAIT_S, LONGEST_WAIT_S = 5.0, 600.0
"""Between two corrections; doubled as long as no view comes of them."""
EVEN_PLANS = frozenset({"direct", "mesh", "doubling"})
"""In others a link may have more of a line than its part in the direct plan. (Mesh and doubling are
for vectors that are through before anything is seen.)"""


def strays(links: Sequence[LinkStats], *, faster: bool) -> dict[bytes, float]:
    """By peer, what arrives as a multiple of what is expected, where it is far from that."""
    return {
        link.peer: times
        for link in links
        if link.expected_bytes_per_s > 0 and link.delivered_bytes_per_s > 0
        if (times := link.delivered_bytes_per_s / link.expected_bytes_per_s) < SLOWER
        or (faster and times > FASTER)
    }


class LinkWatch:
    """Looks at the links now and then, when an op has ended. Thread: of whoever waits for ops."""

    def __init__(
        self,
        read_engine: Callable[[], EngineStats],
        correct: Callable[[Mapping[bytes, float]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """correct: tells by peer what a link carries, as a multiple of its figure in the view."""
        self._read_engine = read_engine
        self._correct = correct
        self._clock = clock
        self._look_s = clock() + LOOK_EVERY_S
        self._correct_s = 0.0
        self._wait_s = FIRST_WAIT_S
        self._epoch = 0
        self._even = True  # only such plans were seen in this view
        self._seen: frozenset[bytes] = frozenset()  # astray at the last look

    def op_over(self, epoch: int, plan: str) -> None:
        """An op has committed in that view."""
        now_s = self._clock()
        if epoch != self._epoch:  # perhaps with other figures
            self._epoch, self._wait_s, self._seen = epoch, FIRST_WAIT_S, frozenset()
            self._even = True
            self._look_s = now_s + LOOK_EVERY_S
        self._even = self._even and plan in EVEN_PLANS
        if now_s < self._look_s:
            return
        self._look_s = now_s + LOOK_EVERY_S
        found = strays(self._read_engine().links, faster=self._even)
        seen, self._seen = self._seen, frozenset(found)
        lasting = {peer: times for peer, times in found.items() if peer in seen}
        if not lasting or now_s < self._correct_s:
            return
        self._correct_s = now_s + self._wait_s
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
        said = ", ".join(f"{peer.hex()[:8]}: {times:.2f}" for peer, times in lasting.items())
        logger.info("links carry another part of what was measured; to %s", said)
        self._correct(lasting)

"""Links of different rates: islands in network namespaces, each behind a line of its own, at one
site or at two that a slower line joins.

Needs root, ip and tc with the `tbf` discipline; is skipped elsewhere.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from atoll import _core
from atoll.membership.messages import LinkFigures
from atoll.membership.topology import encode
from lines import Lines, spaces

pytestmark = pytest.mark.processes

PROBER = Path(__file__).with_name("namespace_prober.py")
TIMEOUT_S = 120.0
PROBES = 5


def measured(lines: Lines) -> _core.Topology:
    """What islands at these lines measure, one probe at a time. Checks every figure."""
    with spaces(lines) as (*names, _), contextlib.ExitStack() as at_end:
        islands = []
        for rank, name in enumerate(names):
            command = [sys.executable, str(PROBER), str(rank), str(len(names))]
            island = subprocess.Popen(
                ["ip", "netns", "exec", name, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            at_end.callback(island.communicate, timeout=TIMEOUT_S)
            at_end.callback(island.kill)
            islands.append(island)
        for island in islands:  # all linked with one another
            assert island.stdout is not None
            assert island.stdout.readline().strip() == "linked"
        ids = [bytes([rank + 1]) * 16 for rank in range(len(islands))]
        figures: dict[tuple[bytes, bytes], LinkFigures] = {}
        for sender, island in enumerate(islands):
            for receiver in range(len(islands)):
                if sender == receiver:
                    continue
                assert island.stdin is not None
                assert island.stdout is not None
                line = lines.bytes_per_s(sender, receiver)
                rates = []
                # On a busy machine a process that must wait for its turn sees bytes come in lumps:
                # islands measure again later, and so does this.
                while len(rates) < PROBES and not (rates and 0.5 < rates[-1] / line < 1.7):
                    island.stdin.write(f"{receiver}\n")
                    island.stdin.flush()
                    rate, rtt_s = map(float, island.stdout.readline().split())
                    rates.append(rate)
                assert 0.5 < rates[-1] / line < 1.7, (sender, receiver, rates)
                figures[ids[sender], ids[receiver]] = LinkFigures(
                    rate_bytes_per_s=rates[-1], rtt_s=rtt_s
                )
    return _core.Topology(encode(ids, figures))


def test_weights_follow_the_lines() -> None:
    topology = measured(Lines(mbit=(80, 80, 16, 80), sites=(0, 0, 0, 0)))
    # The slow island owns nothing, for its own contributions keep its line busy; the others share.
    assert topology.part_weights[2] < 2000
    assert min(w for rank, w in enumerate(topology.part_weights) if rank != 2) > 12000
    seconds = topology.predict(8 << 20)
    assert seconds["direct"] == pytest.approx((8 << 20) / 2e6, rel=0.5)  # its line, once each way
    assert seconds["direct"] < seconds["ring"]


def test_the_ring_crosses_a_slow_line_as_seldom_as_it_can() -> None:
    lines = Lines(mbit=(80, 80, 80, 80), sites=(0, 1, 0, 1), between_mbit=16)
    ring = measured(lines).ring
    assert sorted(ring) == [0, 1, 2, 3]
    around = zip(ring, ring[1:] + ring[:1], strict=True)
    # There and back; by rank it would be four times.
    assert sum(lines.sites[a] != lines.sites[b] for a, b in around) == 2

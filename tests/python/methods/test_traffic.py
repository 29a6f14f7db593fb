"""The formulas of bytes against counting messages, and the papers' ratios."""

from __future__ import annotations

import math

import pytest

from atoll import _core
from atoll.methods import traffic
from atoll.methods.sparse import SparseLayout


@pytest.mark.parametrize("members", [2, 3, 4, 7])
def test_all_reduce_is_what_a_ring_sends(members: int) -> None:
    segment = 840
    sent = 0
    for _ in range(2):  # adding up, then passing on
        for _ in range(members - 1):
            sent += segment
    assert traffic.all_reduce_bytes(segment * members, members) == sent
    assert traffic.reduce_scatter_bytes(segment * members, members) == sent / 2
    assert traffic.all_gather_bytes(segment, members) == segment * (members - 1)


def test_diloco_sends_h_times_less_than_data_parallelism() -> None:
    every_step = traffic.data_parallel_bytes(1000, 4, steps=30)
    assert every_step / traffic.diloco_bytes(4000, 4) == 30


def test_streaming_fp4_sends_four_times_less_than_diloco_with_four_members() -> None:
    numel = 1 << 20
    fragment = _core.encoded_bytes("fp4", numel // 4)
    # A round sends every fragment once.
    ratio = traffic.diloco_bytes(4 * numel, 4) / (4 * traffic.streaming_bytes(fragment, 4))
    assert math.isclose(ratio, 32 / 4.125 / 2)  # 3.88: a block's scale costs an eighth of a bit


def test_sparseloco_sends_a_hundred_times_less() -> None:
    layout = SparseLayout([(1024, 1024)] * 4)
    for members, least in ((2, 140), (4, 70)):
        ratio = traffic.diloco_bytes(4 * layout.numel, members) / traffic.sparseloco_bytes(
            layout.payload_bytes, members
        )
        assert ratio > least


def test_noloco_sends_two_vectors_whatever_the_number_of_members() -> None:
    assert traffic.noloco_bytes(1000) == 8000
    assert traffic.noloco_bytes(1000, partners=2) == 16000

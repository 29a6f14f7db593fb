"""Chaos is a function of its seed."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from atoll.pb import control_pb2 as pb
from atoll_launcher.faults.own_processes import owned
from atoll_launcher.faults.plan import LONGEST_S, SHORTEST_S, Fault, Step, steps, victim
from atoll_launcher.main import main

ALL = tuple(Fault)


def first(count: int, seed: int, **options: Any) -> list[Step]:
    settings = {"mtbf_s": 60.0, "faults": ALL, **options}
    return list(itertools.islice(steps(seed, **settings), count))


def test_a_seed_replays_everything() -> None:
    assert first(50, 7) == first(50, 7)
    assert first(50, 7) != first(50, 8)


def test_the_mean_time_between_faults_is_what_was_asked_for() -> None:
    """The seed is fixed: 4,000 of them are off by 1.6 % (one sigma) at random."""
    found = first(4000, 1, mtbf_s=10.0)
    assert found[-1].at_s / len(found) == pytest.approx(10.0, rel=0.05)


def test_all_faults_come_and_only_those_that_last_have_a_length() -> None:
    found = first(300, 2)
    for fault in ALL:
        assert 60 < sum(step.fault is fault for step in found) < 140
    for step in found:
        if step.fault is Fault.KILL:
            assert step.hold_s == 0
        else:
            assert SHORTEST_S <= step.hold_s <= LONGEST_S


def test_with_fewer_kinds_the_times_stay() -> None:
    """A run without cuts is compared with one that has them: faults come at the same times."""
    some = first(20, 3, faults=(Fault.KILL,))
    assert [step.at_s for step in some] == [step.at_s for step in first(20, 3)]


def test_everybody_is_struck() -> None:
    names = ["a", "b", "c"]
    struck = [victim(step, names) for step in first(60, 4)]
    assert set(struck) == set(names)
    assert victim(first(1, 4)[0], []) is None


def test_a_dry_run_says_what_a_seed_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chaos", "--seed", "5", "--dry-run", "--duration", "10m"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("seed 5\n")
    assert text.count("#") == sum(step.at_s <= 600 for step in first(100, 5))


@pytest.mark.parametrize(
    "arguments",
    [["--mtbf", "soon"], ["--mtbf", "0s"], ["--faults", "burn"], ["--spare", "-1"]],
)
def test_what_makes_no_sense_is_said(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chaos", "127.0.0.1:1", *arguments]) == 2
    assert "atoll chaos --help" in capsys.readouterr().err


def test_islands_elsewhere_are_not_ours_and_dead_ones_nobodys() -> None:
    """An address of another machine, and a port here at which nobody listens any more."""
    far = pb.PeerStatus(info=pb.PeerInfo(island="far"))
    far.info.endpoints.add(host="192.0.2.1", port=22)
    gone = pb.PeerStatus(info=pb.PeerInfo(island="gone"))
    gone.info.endpoints.add(host="127.0.0.1", port=1)
    assert owned([far, gone]) == ([], ["far"])

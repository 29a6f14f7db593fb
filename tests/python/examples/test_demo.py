"""The demo's own conduct, with a launcher that only plays one: kill, join, deadlines, clean end."""

import os
import sys
import time
from pathlib import Path

import demo
import pytest

FAKE = Path(__file__).with_name("fake_atoll.py")

pytestmark = pytest.mark.processes


@pytest.fixture
def play(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> object:
    """Run the demo against the fake with arguments; return exit status, output and errors."""

    def run(*words: str, wrong: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(demo, "ATOLL", [sys.executable, str(FAKE)])
        monkeypatch.setenv("FAKE_ATOLL", wrong)
        fixed = ["--rounds", "30", "--seed", "1", "--out", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", ["demo.py", *fixed, *words])
        status = demo.main()
        return status, *capfd.readouterr()

    return run


def islands_alive(folder: Path) -> list[int]:
    """The processes of islands that the launchers' events name and that do not end in time."""
    started = [
        demo.parse_event(line).fields["pid"]
        for path in folder.rglob("events.jsonl")
        for line in path.read_text().splitlines()
        if '"started"' in line
    ]
    assert started
    end_s = time.monotonic() + 5
    while any(map(runs, started)) and time.monotonic() < end_s:
        time.sleep(0.01)  # a process that got SIGKILL takes a moment to go
    return [pid for pid in started if runs(pid)]


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_one_is_killed_and_one_joins(play, tmp_path: Path) -> None:
    # A busy machine starts the joiner late: there must still be rounds to come.
    status, output, errors = play("--rounds", "100")
    assert (status, errors) == (0, "")
    killed = next(line for line in output.splitlines() if "SIGKILL" in line)
    assert "--seed 1" in killed
    assert "none twice, none lost" in output
    assert "equal: " in output
    assert (tmp_path / "demo.png").stat().st_size > 10_000
    assert islands_alive(tmp_path) == []


def test_the_seed_decides_who_is_killed(play) -> None:
    def victim(seed: str) -> str:
        return play("--seed", seed)[1].partition("SIGKILL to ")[2].split()[0]

    first = victim("5")
    assert first == victim("5")


def test_a_job_that_hangs_fails_and_leaves_nobody(play, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "STALL_S", 5.0)  # longer than a process takes to start
    status, _, errors = play(wrong="hang")
    assert status == 1
    assert "FAILED: it hangs: no view and no round for 5 s" in errors
    assert islands_alive(tmp_path) == []


def test_the_deadline_ends_it(play, tmp_path: Path) -> None:
    status, _, errors = play("--rounds", "10000", "--deadline-s", "1")
    assert status == 1
    assert "FAILED: it takes too long" in errors
    assert islands_alive(tmp_path) == []


def test_a_launcher_that_fails_is_shown(play) -> None:
    status, _, errors = play(wrong="fail")
    assert status == 1
    assert "exit status 1" in errors
    assert "atoll: something is wrong" in errors


def test_a_job_too_short_to_join_is_refused(play, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        play("--rounds", "8")
    assert "--rounds must be at least 9, not 8" in capfd.readouterr().err


def test_the_shells_own_job_is_not_joined(play, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ATOLL_COORDINATOR", "elsewhere:1")
    assert play("--rounds", "100")[0] == 0  # a busy machine starts the joiner late
    assert os.environ["ATOLL_COORDINATOR"] == "elsewhere:1"

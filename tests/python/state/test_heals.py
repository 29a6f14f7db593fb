"""Real islands, one of which comes to hold another state: it is found, mended and told of."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from parity_worker import ROUNDS

from atoll.data.journal import Entry, read

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120), pytest.mark.slow]

WORKER = Path(__file__).with_name("parity_worker.py")


class Outcome:
    """One job, run to its end."""

    def __init__(self, folder: Path, islands: int, *options: str) -> None:
        command = [
            *(sys.executable, "-m", "atoll_launcher.main", "run", "--standalone", "--plain"),
            *("--islands", str(islands), "--min-islands", str(islands), "--threads", "1"),
            *("--log-dir", str(folder), "--events", str(folder / "events.jsonl")),
            *(str(WORKER), *options),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        logs = "".join(path.read_text()[-3000:] for path in folder.glob("island-*.log"))
        self.log = done.stdout + done.stderr + logs
        assert done.returncode == 0, self.log
        self._lines = [json.loads(line) for line in (folder / "events.jsonl").open()]
        self.journals = {
            name: [entry for entry in entries if isinstance(entry, Entry)]
            for name, entries in read(folder).items()
        }

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self._lines if event["kind"] == kind]

    def unequal_rounds(self) -> list[int]:
        """After which the islands said that they hold different states."""
        digests: dict[int, set[str]] = {}
        for entries in self.journals.values():
            for entry in entries:
                digests.setdefault(entry.round, set()).add(entry.digest)
        assert sorted(digests) == list(range(1, ROUNDS + 1))
        return [round_ for round_, found in sorted(digests.items()) if len(found) > 1]

    def contributors(self, round_: int) -> int:
        return max(
            len(entry.used)
            for entries in self.journals.values()
            for entry in entries
            if entry.round == round_
        )


@pytest.mark.parametrize(
    ("islands", "what", "differs"),
    [
        (2, "theta", "1 of 6 chunks differed (theta at byte 0)"),
        # What the step makes of it is wrong in both.
        (3, "momentum", "2 of 6 chunks differed (theta at byte 2097152, momentum at byte 2097152)"),
    ],
)
def test_memory_that_changes_is_healed_in_the_same_round(
    tmp_path: Path, islands: int, what: str, differs: str
) -> None:
    """Also with two islands, and also of the oldest: it knows by itself."""
    outcome = Outcome(tmp_path, islands, "--flip", f"island-0:4:{what}")
    assert outcome.unequal_rounds() == [], outcome.log
    (healed,) = outcome.events("healed")
    assert (healed["island"], healed["round"]) == ("island-0", 4)
    assert healed["message"].startswith(f"after round 4: {differs}, taken from ")
    assert outcome.events("parity") == []
    assert outcome.contributors(4) == islands - 1  # what was wrong is in nobody's mean
    assert outcome.contributors(5) == islands


def test_several_chunks_and_several_heals(tmp_path: Path) -> None:
    outcome = Outcome(tmp_path, 3, *("--flip", "island-1:3:twice", "--flip", "island-2:6:theta"))
    assert outcome.unequal_rounds() == [], outcome.log
    told = [(e["island"], e["round"]) for e in outcome.events("healed")]
    assert told == [("island-1", 3), ("island-2", 6)]
    assert "2 of 6 chunks differed" in outcome.events("healed")[0]["message"]


def test_the_majority_heals_who_computed_something_else(tmp_path: Path) -> None:
    """It has published what it computed, so only the others' votes show it."""
    outcome = Outcome(tmp_path, 3, "--flip", "island-1:4:step")
    assert outcome.unequal_rounds() == [4], outcome.log
    (healed,) = outcome.events("healed")
    assert (healed["island"], healed["round"]) == ("island-1", 5)
    (parity,) = outcome.events("parity")
    assert parity["round"] == 4


def test_of_two_the_older_one_is_right(tmp_path: Path) -> None:
    outcome = Outcome(tmp_path, 2, "--flip", "island-0:4:step")
    assert outcome.unequal_rounds() == [4], outcome.log
    (healed,) = outcome.events("healed")
    assert healed["round"] == 5
    oldest = outcome.events("view")[0]["members"][0]
    assert healed["island"] != oldest


def test_checks_can_be_rarer(tmp_path: Path) -> None:
    """Every third round: before the first, the fourth, the seventh."""
    options = ("--flip", "island-1:3:step", "--parity-every", "3")
    outcome = Outcome(tmp_path, 3, *options)
    assert outcome.unequal_rounds() == [3], outcome.log
    assert [event["round"] for event in outcome.events("healed")] == [4]

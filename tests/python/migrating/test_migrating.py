"""The programs of docs/migrating/ run as they stand, as two islands; calls in the tables exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Coordinator

import atoll
from atoll.config import SessionSettings

PAGES = sorted((Path(__file__).parents[3] / "docs/migrating").glob("*.md"))
PATIENCE_S = 60.0


def programs() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        found = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
        yield from ((f"{page.stem}-{number}", text) for number, text in enumerate(found))


PROGRAMS = dict(programs())


def test_there_are_all_pages_each_with_a_program() -> None:
    assert [page.stem for page in PAGES] == ["hivemind", "opendiloco", "pccl", "torchft"]
    assert {name.split("-")[0] for name in PROGRAMS} == {page.stem for page in PAGES}


@pytest.mark.processes
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_runs_and_two_islands_end_with_the_same(tmp_path: Path, name: str) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAMS[name])
    with Coordinator(min_islands=2) as coordinator:
        islands = [
            subprocess.Popen(
                [sys.executable, str(script)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": "1",
                    "ATOLL_COORDINATOR": f"127.0.0.1:{coordinator.port}",
                    "ATOLL_JOB": "reef",
                    "ATOLL_ISLAND": island,
                },
            )
            for island in ("a", "b")
        ]
        try:
            said = [island.communicate(timeout=PATIENCE_S) for island in islands]
        finally:
            for island in islands:
                island.kill()
                island.wait()
    assert [island.returncode for island in islands] == [0, 0], said[0][1] + said[1][1]
    assert said[0][0] == said[1][0] != ""


def test_what_the_tables_name_is_there() -> None:
    """`atoll.X` and `session.x` of the right column, and ATOLL_* that are settings."""
    named = [
        (page.stem, code)
        for page in PAGES
        for line in page.read_text().splitlines()
        if line.startswith("| ") and line.count("|") == 3
        for code in re.findall(r"`([^`]+)`", line.split("|")[2])
    ]
    missing = []
    for page, code in named:
        for name in re.findall(r"\batoll\.(\w+)", code):
            missing += [] if name in atoll.__all__ else [(page, name)]
        for name in re.findall(r"\bsession\.(\w+)", code):
            missing += [] if hasattr(atoll.Session, name) else [(page, name)]
        for name in re.findall(r"\bddp\.(\w+)", code):
            missing += [] if hasattr(atoll.FaultTolerantDDP, name) else [(page, name)]
        for name in re.findall(r"\bATOLL_(\w+)", code):
            known = name.lower() in SessionSettings.__dataclass_fields__
            missing += [] if known else [(page, name)]
    assert len(named) > 60
    assert missing == []

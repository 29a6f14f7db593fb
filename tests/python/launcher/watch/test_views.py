"""What people see: plain lines, and the live view as a snapshot."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import pytest
from rich.console import Console

from atoll_launcher.islands.traces import Folder, error_line, traceback_lines
from atoll_launcher.watch.dashboard import LINES_KEPT, Dashboard, Row, advance, with_line
from atoll_launcher.watch.events import Event, Kind, Value, to_json
from atoll_launcher.watch.live import clock, render, sparkline
from atoll_launcher.watch.plain import plain_line, printable, scaled, scaled_bytes


def event(kind: Kind, island: str = "", **fields: Value) -> Event:
    return Event(kind=kind, time_s=1000.0, island=island, fields=fields)


STORY = [
    (
        event(Kind.LISTENING, address="127.0.0.1:7000", job="gpt", log_dir="/logs"),
        "job gpt, join it with: atoll run --join 127.0.0.1:7000 SCRIPT (logs in /logs)",
    ),
    (event(Kind.STARTED, "island-0", pid=41, attempt=0, log="l"), "island-0 started, pid 41"),
    (event(Kind.STARTED, "island-1", pid=42, attempt=0, log="l"), "island-1 started, pid 42"),
    (event(Kind.JOINED, "island-0", epoch=1), "island-0 joined, view 1"),
    (event(Kind.JOINED, "island-1", epoch=1), "island-1 joined, view 1"),
    (event(Kind.VIEW, epoch=1, members=["island-0", "island-1"]), "view 1: island-0, island-1"),
    (
        event(
            Kind.REPORT, "island-0", round=2, loss=2.5, tokens_per_s=9100.0, sync_s=0.12,
            sent_bytes=2_400_000, phase="training",
        ),
        None,
    ),
    (
        event(
            Kind.ROUND, round=1, loss=3.0, epoch=1, islands=2, tokens_per_s=18_000.0, sync_s=0.1
        ),
        "round 1  loss 3.000  2 islands  view 1  18k tokens/s  sync 0.10 s",
    ),
    (
        event(
            Kind.ROUND, round=2, loss=2.341, epoch=1, islands=2, tokens_per_s=18_210.0, sync_s=0.12
        ),
        "round 2  loss 2.341  2 islands  view 1  18.2k tokens/s  sync 0.12 s",
    ),
    (
        event(Kind.EXITED, "island-1", code=0, signal=9, error="", log="/logs/island-1.log"),
        "island-1 exited: SIGKILL, log in /logs/island-1.log",
    ),
    (event(Kind.LEFT, "island-1", reason="crashed", signal=9), "island-1 left: crashed (SIGKILL)"),
    (event(Kind.VIEW, epoch=2, members=["island-0"]), "view 2: island-0"),
    (
        event(Kind.RESTARTING, "island-1", attempt=1, wait_s=1.0),
        "island-1 starts again in 1 s (restart 1)",
    ),
    (event(Kind.JOINED, "island-7", epoch=3), "island-7 joined, view 3"),
    (event(Kind.LEFT, "island-7", reason="finished"), "island-7 left: finished"),
]  # fmt: skip

SNAPSHOT = """\
╭─ atoll  gpt ─────────────────────────────────────────────────────────────────────────────────────╮
│ round 2   view 2   1 member   18.2k tokens/s   01:05                                             │
│ loss 2.341 █▁                                                                                    │
│ join with: atoll run --join 127.0.0.1:7000 SCRIPT                                                │
│ logs in /logs                                                                                    │
╰──────────────────────────────────────────────────────────────────────────────────────────────────╯
island    pid  state      round   loss  tokens/s    sync  sent/round  restarts
island-0   41  training       2  2.500      9.1k  0.12 s      1.2 MB         0
island-1       waits 1 s      -      -         -       -           -         0
island-1 joined, view 1
view 1: island-0, island-1
island-1 exited: SIGKILL, log in /logs/island-1.log
island-1 left: crashed (SIGKILL)
view 2: island-0
island-1 starts again in 1 s (restart 1)
island-7 joined, view 3
island-7 left: finished
"""


@pytest.mark.parametrize(("told", "line"), STORY, ids=lambda value: getattr(value, "kind", None))
def test_plain_lines(told: Event, line: str | None) -> None:
    assert plain_line(told) == line


def test_every_kind_has_a_line_or_is_for_programs_only() -> None:
    silent = [kind for kind in Kind if plain_line(event(kind, "island-0")) is None]
    assert silent == [Kind.REPORT]


def drawn(state: Dashboard, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    console.print(render(state, 1065.0, width))
    assert isinstance(console.file, io.StringIO)
    return "".join(line.rstrip() + "\n" for line in console.file.getvalue().splitlines())


def test_a_job_with_certificates_is_joined_with_a_token() -> None:
    named = {"address": "a.example:7000", "job": "gpt", "log_dir": "/logs", "secure": True}
    assert plain_line(event(Kind.LISTENING, **named, authority="certs")) == (
        "job gpt, join it with a token: atoll token --dir certs --enroll a.example:7000; then on "
        "the joining machine: ATOLL_TOKEN=TOKEN atoll run --join a.example:7000 [--advertise "
        "ADDRESS, if others can dial it there] SCRIPT (logs in /logs)"
    )
    # Who has joined it makes no tokens.
    assert (
        plain_line(event(Kind.LISTENING, **named)) == "job gpt, at a.example:7000 (logs in /logs)"
    )


def test_the_live_view_of_a_story() -> None:
    state = Dashboard(job="gpt", started_at_s=1000.0)
    for told, _ in STORY:
        state = advance(state, told)
    assert drawn(state, 100) == SNAPSHOT


@pytest.mark.parametrize("width", [20, 40, 79, 300])
def test_the_live_view_fits_any_terminal(width: int) -> None:
    row = Row(name="island-0", is_ours=True, pid=4_000_000, sent_per_round=1e12, loss=1e6)
    state = Dashboard(
        job="x" * 50, started_at_s=0.0, rows=(row,), losses=tuple(map(float, range(400)))
    )
    state = with_line(replace(state, address="[::1]:65535"), "y" * 500)
    assert max(len(line) for line in drawn(state, width).splitlines()) <= width


def test_sent_bytes_are_shown_per_round_and_survive_a_restart() -> None:
    state = Dashboard(job="x", started_at_s=0.0)
    for round_, sent in [(1, 100), (1, 150), (3, 500)]:
        state = advance(state, event(Kind.REPORT, "a", round=round_, sent_bytes=sent))
    assert state.rows[0].sent_per_round == 200.0
    state = advance(state, event(Kind.STARTED, "a", pid=1, attempt=1))
    assert math.isnan(state.rows[0].sent_per_round)


def test_only_the_last_lines_are_kept() -> None:
    state = Dashboard(job="x", started_at_s=0.0)
    for number in range(20):
        state = with_line(state, str(number))
    assert state.lines == tuple(str(number) for number in range(20 - LINES_KEPT, 20))


def test_sparkline() -> None:
    assert sparkline([], 10) == ""
    assert sparkline([1.0], 10) == "▁"
    assert sparkline([8, 7, 6, 5, 4, 3, 2, 1], 8) == "█▇▆▅▄▃▂▁"
    assert sparkline([4, 4, 2, 2], 2) == "█▁"
    assert len(sparkline([float(i) for i in range(1000)], 60)) == 60


def test_numbers() -> None:
    assert [scaled(value) for value in (0, 7, 999.4, 18_210, 999_600, 2.5e9, math.nan)] == [
        "0", "7", "999", "18.2k", "1M", "2.5G", "-",
    ]  # fmt: skip
    assert [scaled_bytes(v) for v in (12, 1_200_000, math.nan)] == ["12 B", "1.2 MB", "-"]
    assert [clock(seconds) for seconds in (5, 65, 3723)] == ["00:05", "01:05", "1:02:03"]


def test_what_a_script_prints_cannot_disturb_the_terminal() -> None:
    assert printable("\x1b[31mred\x1b[0m\x1b]0;title\x07\ttab\x08\r") == "red\ttab"
    assert printable("10%\r50%\r100%") == "100%"


# --- the events file ------------------------------------------------------------------------------


def test_json_has_time_kind_island_and_null_for_unknown() -> None:
    told = event(Kind.REPORT, "island-0", round=3, loss=math.nan, contributed=True)
    assert json.loads(to_json(told)) == {
        "time": 1000.0,
        "kind": "report",
        "island": "island-0",
        "round": 3,
        "loss": None,
        "contributed": True,
    }
    assert "island" not in json.loads(to_json(event(Kind.FINISHED, code=0, message="")))


# --- tracebacks -----------------------------------------------------------------------------------

TRACE = [
    "Traceback (most recent call last):",
    '  File "a.py", line 1, in <module>',
    "    import x",
    "ModuleNotFoundError: No module named 'x'",
]
SYNTAX = ['  File "a.py", line 1', "    def (:", "        ^", "SyntaxError: invalid syntax"]


def test_the_error_of_a_traceback() -> None:
    assert error_line(["before", *TRACE, "after"]) == TRACE[-1]
    assert error_line(SYNTAX) == SYNTAX[-1]
    assert error_line(["all", "is", "well"]) == ""
    assert traceback_lines(["before", *TRACE]) == TRACE
    assert traceback_lines(["x", *SYNTAX]) == SYNTAX
    assert traceback_lines([str(number) for number in range(9)]) == ["4", "5", "6", "7", "8"]


def test_equal_tracebacks_are_folded_and_lines_between_pass() -> None:
    folder = Folder()
    shown = []
    for line_a, line_b in zip(TRACE, TRACE, strict=True):
        shown += folder.feed("a", line_a)
        shown += folder.feed("c", "hello")
        shown += folder.feed("b", line_b)
    assert shown == ["hello"] * 3 + [*TRACE, "hello", f"{TRACE[-1]} (same traceback as a)"]


def test_a_traceback_that_was_cut_off_is_shown_at_the_end() -> None:
    folder = Folder()
    assert [folder.feed("a", line) for line in TRACE[:2]] == [[], []]
    assert folder.flush("a") == TRACE[:2]
    assert folder.flush("a") == []


def test_lines_about_checkpoints() -> None:
    message = {"message": "round 3: no checkpoint"}
    assert plain_line(event(Kind.CHECKPOINT_FAILED, "island-0", **message)) == (
        "island-0: CHECKPOINT: round 3: no checkpoint"
    )
    assert plain_line(event(Kind.RESTORED, "island-0", message="restored round 3")) == (
        "island-0: restored round 3"
    )


def test_an_elastic_island_is_shown_as_it_is_now() -> None:
    state = Dashboard(job="gpt", started_at_s=1000.0)
    for kind, message in (
        (Kind.LAYOUT, "2 stages: layers 0-2 on 2 (2+2 micro-batches)"),
        (Kind.THROUGHPUT, "12000 tokens/s with 4 workers"),
        (Kind.LAYOUT, "2 stages: layers 0-1 on 1 (4 micro-batches)"),
        (Kind.RECOVERY, "88 ms (agree 30, state 3, verify 4, redo 51)"),
        (Kind.THROUGHPUT, "8000 tokens/s with 3 workers, 12000 before"),
    ):
        state = advance(state, event(kind, "island-0", message=message))
    head = [line.strip("│ ") for line in drawn(replace(state, lines=()), 100).splitlines()]
    assert "layout 2 stages: layers 0-1 on 1 (4 micro-batches)" in head
    assert "recovery 88 ms (agree 30, state 3, verify 4, redo 51)" in head
    assert "throughput 8000 tokens/s with 3 workers, 12000 before" in head
    assert not any("layers 0-2" in line for line in head)

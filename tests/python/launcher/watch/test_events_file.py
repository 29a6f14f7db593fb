"""The events file, also when nobody reads it."""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path

import pytest

from atoll_launcher.exit_codes import LauncherError
from atoll_launcher.watch import events
from atoll_launcher.watch.events import Event, EventsFile, Kind

MANY = 3_000
"""Far more than a pipe holds."""


def event(number: int) -> Event:
    return Event(kind=Kind.NOTE, time_s=1.0, fields={"message": f"{number} {'x' * 100}"})


def numbers(text: str) -> list[int]:
    return [int(json.loads(line)["message"].split()[0]) for line in text.splitlines()]


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def opened(pipe: Path) -> tuple[EventsFile, int]:
    """And the reader's end, which was there first."""
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    file = EventsFile(pipe)
    os.set_blocking(reader, True)
    return file, reader


def test_each_line_is_written_at_once(pipe: Path) -> None:
    file, reader = opened(pipe)
    with os.fdopen(reader) as stream:
        for number in range(3):
            file.write(event(number))
            assert numbers(stream.readline()) == [number]
        file.close()
        assert stream.read() == ""


def test_all_is_written_in_order_also_in_a_new_folder(tmp_path: Path) -> None:
    file = EventsFile(tmp_path / "new" / "events")
    for number in range(MANY):
        file.write(event(number))
    file.close()
    assert numbers((tmp_path / "new" / "events").read_text()) == list(range(MANY))


def test_a_pipe_that_nobody_reads_holds_nobody_up_and_loses_nothing(pipe: Path) -> None:
    file, reader = opened(pipe)
    for number in range(MANY):
        file.write(event(number))  # would never return, if it waited for the reader
    found: list[str] = []

    def read() -> None:
        with os.fdopen(reader) as stream:
            found.append(stream.read())

    reading = threading.Thread(target=read)
    reading.start()
    file.close()
    reading.join()
    assert numbers(found[0]) == list(range(MANY))


def test_what_is_left_out_is_told(
    pipe: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(events, "MOST_WAITING", 10)
    monkeypatch.setattr(events, "CLOSE_S", 0.1)
    file, reader = opened(pipe)
    for number in range(MANY):
        file.write(event(number))
    with caplog.at_level(logging.WARNING):
        file.close()
    (said,) = caplog.messages
    assert "nobody has read the last" in said
    os.close(reader)


def test_a_reader_that_goes_is_told_once(pipe: Path, caplog: pytest.LogCaptureFixture) -> None:
    file, reader = opened(pipe)
    os.close(reader)
    for number in range(5):
        file.write(event(number))
    file.close()
    (said,) = caplog.messages
    assert said == f"cannot write {pipe} any more: Broken pipe"


def test_an_events_file_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(LauncherError, match="choose another file with --events"):
        EventsFile(tmp_path)

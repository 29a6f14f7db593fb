"""What tests of the launcher start, and leave none of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_coordinator import FakeCoordinator
from launched import Launch, Launcher


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Start `atoll` with arguments; the first is the command."""
    launchers: list[Launcher] = []

    def start(*arguments: str, **options: Any) -> Launcher:
        folder = options.pop("folder", tmp_path)
        launchers.append(Launcher(folder, list(arguments), **options))
        return launchers[-1]

    yield start
    for launcher in launchers:
        launcher.close()


@pytest.fixture
def coordinator() -> Iterator[FakeCoordinator]:
    """A coordinator of job `lagoon` without any islands."""
    fake = FakeCoordinator()
    yield fake
    fake.close()


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    """Write a script and return its path."""

    def write(text: str) -> str:
        path = tmp_path / "script.py"
        path.write_text(text)
        return str(path)

    return write

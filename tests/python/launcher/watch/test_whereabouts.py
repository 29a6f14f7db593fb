"""Which job a command means that names none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from atoll_launcher.exit_codes import LauncherError
from atoll_launcher.watch import whereabouts
from atoll_launcher.watch.whereabouts import Whereabouts, find, told

ADDRESS = "palm.example:7000"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def beside(address: str, tls: Path | None, *, operates: bool, name: str) -> None:
    """Another process that lives says so, too."""
    known = {"address": address, "tls": tls and str(tls), "operates": operates, "pid": os.getpid()}
    (whereabouts.HOME / name).write_text(json.dumps(known))


def test_a_job_is_known_while_it_runs() -> None:
    with told(ADDRESS, Path("certs"), operates=True):
        found = Whereabouts(address=ADDRESS, tls=Path("certs").resolve(), operates=True)
        assert find(None, {}) == find(ADDRESS, {}) == found
        assert find("other:1", {}) == Whereabouts(address="other:1")
    with pytest.raises(LauncherError, match="no job was started in this folder"):
        find(None, {})


@pytest.mark.parametrize("name", ["0.json", "~.json"])
def test_the_operators_certificate_goes_before_an_islands(name: str) -> None:
    """Its machine may be a host of the job, too: both then run in one folder."""
    with told(ADDRESS, Path("operator"), operates=True):
        beside(ADDRESS, Path("island"), operates=False, name=name)
        assert find(None, {}).tls == Path("operator").resolve()


@pytest.mark.parametrize("name", ["0.json", "~.json"])
def test_any_certificate_goes_before_none(name: str) -> None:
    with told(ADDRESS, Path("island"), operates=False):
        beside(ADDRESS, None, operates=False, name=name)
        assert find(None, {}).tls == Path("island").resolve()


def test_of_several_jobs_one_has_to_be_named() -> None:
    with told(ADDRESS, None, operates=True):
        beside("reef.example:7000", None, operates=True, name="0.json")
        with pytest.raises(LauncherError, match="several jobs run here"):
            find(None, {})

"""Writing, reading, damage and retention: in a folder, in memory, in a folder through fsspec."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from atoll.checkpoint import rules
from atoll.checkpoint.local import STALE_S, LocalDraft
from atoll.checkpoint.places import Place, open_place
from atoll.checkpoint.read import problem_of, survey
from atoll.checkpoint.write import retire
from atoll.errors import CheckpointError, ConfigError
from states import Reader, groups, save, snapshot


@pytest.fixture(params=["folder", "file", "memory", "fsspec"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    url = {
        "folder": str(tmp_path / "deep" / "run"),
        "file": f"file://{tmp_path}/a%20run",
        "memory": f"memory://{secrets.token_hex(8)}/run",
        "fsspec": f"local://{tmp_path}/run",
    }[request.param]
    return open_place(url)


def files_at(place: Place) -> list[str]:
    fs, root = fsspec.core.url_to_fs(place.url)
    return sorted(str(path) for path in fs.find(root)) if fs.exists(root) else []


def edit(place: Place, name: str, file: str, change: Callable[[bytes], bytes | None]) -> None:
    """Damages a file behind everybody's back; None removes it."""
    fs, root = fsspec.core.url_to_fs(place.url)
    path = f"{root.rstrip('/')}/{name}/{file}"
    data = change(fs.cat_file(path))
    fs.rm_file(path)
    if data is not None:
        fs.pipe_file(path, data)


def test_what_is_written_is_restored_bit_for_bit(place: Place) -> None:
    assert Reader().restore(place) is None
    assert survey(place) == []
    for round_ in (10, 20):
        save(place, round_)
    reader = Reader()
    found = reader.restore(place)
    assert found is not None
    assert (found.manifest.round, found.manifest.revision, found.manifest.epoch) == (20, 27, 3)
    assert reader.holds(20)
    assert not reader.holds(10)
    assert reader.damaged == []
    assert [entry.round for entry in survey(place)] == [20, 10]


def test_the_files_are_those_of_a_library_that_others_read(tmp_path: Path) -> None:
    import safetensors.torch

    written = save(open_place(str(tmp_path)), 10)
    loaded = safetensors.torch.load_file(tmp_path / written.name / "parameters-00000.safetensors")
    wanted = groups(10)["parameters"]
    assert loaded.keys() == wanted.keys()
    assert all(torch.equal(loaded[name], wanted[name]) for name in wanted)
    value = json.loads((tmp_path / written.name / "manifest.json").read_text())
    assert value["files"][0]["tensors"]["a.weight"] == ["float32", [300, 40]]


def test_a_large_state_goes_into_several_files(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "PART_BYTES", 48_100)
    written = save(place, 10)
    assert len(written.manifest.files) == 4
    reader = Reader()
    assert reader.restore(place) is not None
    assert reader.holds(10)


def flip(data: bytes) -> bytes:
    at = len(data) - 5
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGE: list[tuple[str, str, Callable[[bytes], bytes | None], str]] = [
    ("cut", "momentum-00000.safetensors", lambda data: data[:-1], "48163 bytes, 48164 were"),
    ("flip", "parameters-00000.safetensors", flip, "content has changed"),
    ("missing", "momentum-00000.safetensors", lambda data: None, "it is missing"),
    ("empty", "manifest.json", lambda data: b"", "not JSON"),
    ("cut", "manifest.json", lambda data: data[: len(data) // 2], "not JSON"),
    (
        "forged",
        "manifest.json",
        lambda data: data.replace(b'"revision": 27', b'"revision": 28'),
        "digest does not match",
    ),
]


@pytest.mark.parametrize(("what", "file", "change", "text"), DAMAGE)
def test_a_damaged_one_is_passed_over(
    place: Place, what: str, file: str, change: Callable[[bytes], bytes | None], text: str
) -> None:
    save(place, 10)
    newest = save(place, 20)
    edit(place, newest.name, file, change)
    reader = Reader()
    found = reader.restore(place)
    assert found is not None
    assert found.manifest.round == 10
    assert reader.holds(10)
    ((name, problem),) = reader.damaged
    assert name == newest.name
    if (what, file) == ("cut", "momentum-00000.safetensors"):
        assert " bytes, " in problem
        assert problem.endswith("were written")
    else:
        assert text in problem


def test_when_none_is_whole_nothing_begins_anew(place: Place) -> None:
    for round_ in (10, 20):
        edit(place, save(place, round_).name, "manifest.json", flip)
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints is whole"):
        Reader().restore(place)


def test_another_jobs_checkpoints(place: Place) -> None:
    save(place, 10)
    with pytest.raises(ConfigError, match="holds checkpoints of job 'reef', this is job 'lagoon'"):
        Reader().restore(place, job="lagoon")


def test_a_state_that_is_newer_is_kept(place: Place) -> None:
    save(place, 10)
    assert Reader().restore(place, newer_than=10) is None
    assert Reader().restore(place, newer_than=9) is not None


def test_another_model(place: Place) -> None:
    save(place, 10)

    class Other(Reader):
        def begin(self, values: dict[str, Any]) -> dict[str, dict[str, torch.Tensor]]:
            targets = super().begin(values)
            targets["parameters"]["more"] = torch.zeros(1)
            return targets

    other = Other()
    with pytest.raises(CheckpointError, match="more is in none of its files"):
        other.restore(place)


def test_the_newest_few_stay(place: Place) -> None:
    for round_ in (10, 20, 30, 40):
        retire(place, save(place, round_), keep=2)
    assert [entry.round for entry in survey(place)] == [40, 30]
    assert len(files_at(place)) == 6


def test_damaged_ones_do_not_push_out_the_last_good_one(place: Place) -> None:
    for round_ in (10, 20, 30):
        save(place, round_)
    for entry in survey(place)[:2]:
        edit(place, entry.name, "momentum-00000.safetensors", flip)
    # The job went back to round 10, and writes round 15.
    retire(place, save(place, 15), keep=2)
    reader = Reader()
    found = reader.restore(place)
    assert found is not None
    assert found.manifest.round == 15
    assert reader.holds(15)


def test_nothing_is_deleted_when_the_new_one_cannot_be_read_back(place: Place) -> None:
    save(place, 10)
    newest = save(place, 20)
    edit(place, newest.name, "momentum-00000.safetensors", lambda data: data[:-1])
    with pytest.raises(OSError, match="cannot be read back"):
        retire(place, newest, keep=1)
    assert len(survey(place)) == 2


def test_a_write_that_fails_leaves_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    save(place, 10)
    before = files_at(place)
    drafts: list[Any] = []
    begin = type(place).draft

    def draft(self: Any, name: str) -> Any:
        made = begin(self, name)
        wrote = made.write

        def write(file: str, data: bytes) -> None:
            if file == "momentum-00000.safetensors":
                raise OSError(28, "No space left on device")
            wrote(file, data)

        made.write = write
        drafts.append(made)
        return made

    monkeypatch.setattr(type(place), "draft", draft)
    with pytest.raises(OSError, match="No space left"):
        save(place, 20)
    assert drafts
    assert files_at(place) == before
    if not place.url.startswith(("memory:", "local:")):
        assert os.listdir(place.url) == [survey(place)[0].name]


def test_a_manifest_that_never_came(place: Place) -> None:
    """A writer that dies: what it left is no checkpoint, and goes when newer ones are there."""
    save(place, 10)
    draft = place.draft(rules.name_of(15, "0badc0de"))
    draft.write("parameters-00000.safetensors", b"half a file")
    assert [entry.round for entry in survey(place)] == [10]
    reader = Reader()
    found = reader.restore(place)
    assert found is not None
    assert found.manifest.round == 10
    if isinstance(draft, LocalDraft):
        os.close(draft._lock)  # as the end of its process does
        os.utime(draft._path, (0, time.time() - STALE_S - 1))
    for round_ in (20, 30):
        retire(place, save(place, round_), keep=2)
    assert not [path for path in files_at(place) if "0badc0de" in path]
    assert [entry.round for entry in survey(place)] == [30, 20]


def test_a_writer_that_lives_is_let_be(tmp_path: Path) -> None:
    place = open_place(str(tmp_path))
    draft = place.draft(rules.name_of(5, "0badc0de"))
    draft.write("parameters-00000.safetensors", b"half a file")
    os.utime(tmp_path / ".tmp-round-0000000005-0badc0de", (0, 0))
    retire(place, save(place, 20), keep=1)
    assert (tmp_path / ".tmp-round-0000000005-0badc0de").is_dir()
    draft.abandon()
    assert not (tmp_path / ".tmp-round-0000000005-0badc0de").exists()


def test_two_writers_of_one_round(place: Place) -> None:
    """After a partition both may think that it is their turn."""
    one, other = save(place, 10), save(place, 10)
    assert one.name != other.name
    assert [problem_of(place, w.name, w.manifest) for w in (one, other)] == [None, None]
    reader = Reader()
    assert reader.restore(place) is not None
    assert reader.holds(10)


def test_what_cannot_be_a_place() -> None:
    with pytest.raises(ConfigError, match="empty"):
        open_place("")
    with pytest.raises(ConfigError, match="nosuch"):
        open_place("nosuch://bucket/run")


def test_a_snapshot_of_nothing(place: Place) -> None:
    assert snapshot(3).groups["parameters"]["none"].numel() == 0

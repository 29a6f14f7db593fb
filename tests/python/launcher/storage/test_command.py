"""`atoll checkpoints`: the table, the JSON, the exit codes."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest

from atoll.checkpoint.manifest import Part
from atoll.checkpoint.places import open_place
from atoll.checkpoint.write import write
from atoll_launcher.main import main
from states import ORIGIN, save, snapshot


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["checkpoints", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(params=["folder", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return {"folder": str(tmp_path), "memory": f"memory://{secrets.token_hex(8)}"}[request.param]


def test_a_table(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "list", url)[:2] == (0, f"no complete checkpoint at {url}\n")
    newest = [save(open_place(url), round_) for round_ in (10, 20)][1]
    code, out, _ = run(capsys, "list", url)
    lines = out.splitlines()
    assert code == 0
    assert lines[1].split() == ["round", "state", "written", "size", "files", "job", "by", "name"]
    assert lines[2].split()[:2] == ["20", "complete"]
    assert lines[2].split()[-1] == newest.name
    assert "96.9 kB" in lines[2]
    assert lines[3].split()[:2] == ["10", "complete"]
    code, out, _ = run(capsys, "verify", url)
    assert code == 0
    assert [line.split()[1] for line in out.splitlines()[2:]] == ["whole", "whole"]


def test_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [save(open_place(str(tmp_path)), round_).name for round_ in (10, 20, 30)]
    file = tmp_path / names[1] / "momentum-00000.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    (tmp_path / names[0] / "manifest.json").write_text("{")
    code, out, _ = run(capsys, "verify", str(tmp_path))
    assert code == 6
    assert [line.split()[1] for line in out.splitlines()[2:5]] == ["whole", "DAMAGED", "DAMAGED"]
    assert f"{names[1]}: momentum-00000.safetensors: its content has changed" in out
    assert f"{names[0]}: the manifest is not JSON" in out

    code, out, _ = run(capsys, "verify", str(tmp_path), "--json")
    found = json.loads(out)
    assert code == 6
    assert found["url"] == str(tmp_path)
    states = [(one["round"], one["state"]) for one in found["checkpoints"]]
    assert states == [(30, "whole"), (20, "damaged"), (10, "damaged")]
    assert found["checkpoints"][0]["job"] == "reef"
    assert [f["group"] for f in found["checkpoints"][0]["files"]] == ["parameters", "momentum"]
    # The list reads manifests alone.
    code, out, _ = run(capsys, "list", str(tmp_path), "--json")
    assert [one["state"] for one in json.loads(out)["checkpoints"]] == [
        "complete",
        "complete",
        "damaged",
    ]


def test_what_is_no_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for url, text in ((str(tmp_path / "file"), "cannot be listed"), ("nosuch://x", "nosuch")):
        code, out, err = run(capsys, "list", url)
        assert (code, out) == (2, "")
        assert text in err
        assert err.count("\n") == 1


def save_part(url: str, shard: int, round_: int) -> str:
    place = open_place(f"{url}/shard-{shard}-of-2")
    part = Part(shard=shard, shards=2, line="a", whole=0)
    return write(place, snapshot(round_), ORIGIN, epoch=1, part=part).name


def test_parts_of_shards_are_put_together(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    for round_ in (10, 20):
        names = [save_part(url, shard, round_) for shard in range(2)]
    save_part(url, 0, 30)
    code, out, _ = run(capsys, "verify", url)
    assert code == 0  # the last one may still be under way
    lines = out.splitlines()
    states = ["in part", "whole", "whole"]
    for line, round_, state in zip(lines[2:5], (30, 20, 10), states, strict=True):
        assert line.split()[: 1 + len(state.split())] == [str(round_), *state.split()]
    assert lines[3].split()[-1] == f"shard-*-of-2/{names[0][:-8]}*"
    assert "194 kB" in lines[3]
    assert lines[5].endswith("no part of shard 1")

    found = json.loads(run(capsys, "list", url, "--json")[1])["checkpoints"]
    assert [(one["round"], one["state"]) for one in found] == [
        (30, "in part"),
        (20, "complete"),
        (10, "complete"),
    ]
    assert [(part["shard"], part["name"]) for part in found[1]["parts"]] == [*enumerate(names)]


def test_a_damaged_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [save_part(str(tmp_path), shard, 10) for shard in range(2)]
    file = tmp_path / "shard-1-of-2" / names[1] / "momentum-00000.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    code, out, _ = run(capsys, "verify", str(tmp_path))
    assert code == 6
    assert out.splitlines()[2].split()[:2] == ["10", "DAMAGED"]
    assert f"shard-1-of-2/{names[1]}: momentum-00000.safetensors: its content has changed" in out
    assert run(capsys, "list", str(tmp_path / "shard-0-of-2"))[0] == 0

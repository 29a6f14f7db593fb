"""`atoll export`: the newest whole checkpoint as a folder that others read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from atoll.checkpoint.manifest import Part, Piece, decode, encode
from atoll.checkpoint.places import open_place
from atoll.checkpoint.write import write
from atoll_launcher.main import main
from states import ORIGIN, groups, save, snapshot


def export(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["export", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def same(path: Path, wanted: dict[str, torch.Tensor]) -> bool:
    found = safetensors.torch.load_file(path / "model.safetensors")
    return found.keys() == wanted.keys() and all(
        torch.equal(found[name], tensor) for name, tensor in wanted.items()
    )


def model_folder(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "tokenizer.json").write_text("[]")
    (path / "training_args.bin").write_bytes(b"x")
    safetensors.torch.save_file(tensors, path / "model.safetensors")
    return path


def test_the_newest_whole_one_or_the_one_that_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    names = [save(open_place(str(run)), round_).name for round_ in (10, 20, 30)]
    assert export(capsys, run, "--to", tmp_path / "a")[0] == 0
    assert same(tmp_path / "a", groups(30)["parameters"])

    file = run / names[2] / "parameters-00000.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    code, out, err = export(capsys, run, "--to", tmp_path / "deep" / "b")
    assert (code, names[1] in out, f"{names[2]} is passed over" in err) == (0, True, True)
    assert same(tmp_path / "deep" / "b", groups(20)["parameters"])
    assert export(capsys, run / names[0], "--to", tmp_path / "c")[0] == 0
    assert same(tmp_path / "c", groups(10)["parameters"])
    assert export(capsys, run / names[2], "--to", tmp_path / "d")[0] == 6
    assert not (tmp_path / "d").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_was_not_trained_comes_from_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """But not a tensor that is one with a trained one: its old value would undo the tie."""
    save(open_place(str(tmp_path / "run")), 10)
    old, trained = groups(0)["parameters"], groups(10)["parameters"]
    old["a.bias"] = torch.ones(40)
    frozen = {"frozen": torch.arange(3.0), "norm": torch.ones(40), "nothing": torch.ones(0, 3)}
    base = model_folder(tmp_path / "base", {**old, **frozen, "tied": old["a.weight"].clone()})
    to = tmp_path / "to"
    to.mkdir()
    code, out, _ = export(capsys, tmp_path / "run", "--to", to, "--model", base)
    assert code == 0, out
    assert "3 tensors that were not trained" in out
    assert same(to, trained | frozen)
    assert sorted(path.name for path in to.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def test_what_does_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, full = tmp_path / "run", tmp_path / "full"
    save(open_place(str(run)), 10)
    other = model_folder(tmp_path / "other", {"z": torch.zeros(1)})
    shape = model_folder(tmp_path / "shape", {"a.bias": torch.zeros(7)})
    full.mkdir()
    (full / "file").write_text("")
    cases = [
        ((run, "--to", full), 2, "is there already"),
        ((run, "--to", tmp_path / "x", "--model", full), 2, "has no config.json"),
        ((run, "--to", tmp_path / "x", "--model", other), 2, "another model's: none of its"),
        ((run, "--to", tmp_path / "x", "--model", shape), 2, "a.bias is [7] there, [40] in"),
        ((tmp_path / "empty", "--to", tmp_path / "x"), 6, "there is no checkpoint"),
    ]
    for words, wanted, text in cases:
        code, out, err = export(capsys, *words)
        assert (code, out) == (wanted, ""), err
        assert text in err
        assert err.count("\n") == 1
    assert not (tmp_path / "x").exists()


def save_split(run: Path, round_: int) -> list[Path]:
    """The parts of two shards, which have every tensor's rows between them."""
    whole = snapshot(round_)
    found = []
    for shard in range(2):
        mine, pieces = {}, {}
        for name, tensor in whole.groups["parameters"].items():
            if tensor.dim() == 0:
                mine[name] = tensor
                continue
            rows = -(-len(tensor) // 2)
            mine[name] = tensor[shard * rows : (shard + 1) * rows].clone()
            begin = (min(len(tensor), shard * rows), *[0] * (tensor.dim() - 1))
            pieces[name] = Piece(shape=tuple(tensor.shape), offsets=begin)
        folder = run / f"shard-{shard}-of-2"
        written = write(
            open_place(str(folder)),
            replace(whole, groups={"parameters": mine}, pieces=pieces),
            ORIGIN,
            epoch=3,
            part=Part(shard=shard, shards=2, line="l", whole=0),
        )
        found.append(folder / written.name)
    return found


def test_parts_of_shards_are_put_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the newest checkpoint of which all parts are there and whole."""
    run = tmp_path / "run"
    _, middle, newest = save_split(run, 10), save_split(run, 20), save_split(run, 30)
    code, out, _ = export(capsys, run, "--to", tmp_path / "a")
    assert (code, "of round 30 of 2 shards" in out) == (0, True)
    assert same(tmp_path / "a", groups(30)["parameters"])

    (newest[0] / "manifest.json").unlink()
    file = middle[1] / "parameters-00000.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    code, out, err = export(capsys, run, "--to", tmp_path / "b")
    assert (code, "round 20 of 2 shards is passed over: " in err) == (0, True)
    assert same(tmp_path / "b", groups(10)["parameters"])


def test_parts_that_make_nothing_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    parts = save_split(run, 10)
    for url in (parts[0], parts[0].parent):
        code, _, err = export(capsys, url, "--to", tmp_path / "x")
        assert (code, "parts of one shard of several; name the folder above" in err) == (2, True)
    parts[1].rename(tmp_path / "lost")
    code, _, err = export(capsys, run, "--to", tmp_path / "x")
    assert (code, "no checkpoint of which all shards have a part" in err) == (6, True)
    assert not (tmp_path / "x").exists()


def test_parts_of_an_earlier_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It did not say where its pieces lie."""
    for shard in range(2):
        place = open_place(str(tmp_path / "run" / f"shard-{shard}-of-2"))
        part = Part(shard=shard, shards=2, line="l", whole=0)
        written = write(place, snapshot(10), ORIGIN, epoch=3, part=part)
        path = tmp_path / "run" / f"shard-{shard}-of-2" / written.name / "manifest.json"
        path.write_bytes(encode(replace(decode(path.read_bytes()), pieces=None)))
    code, _, err = export(capsys, tmp_path / "run", "--to", tmp_path / "x")
    assert (code, "does not say how parameters are split; atoll test wrote it" in err) == (6, True)

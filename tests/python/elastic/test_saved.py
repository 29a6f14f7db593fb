"""The model of an elastic island, out of its checkpoints."""

from __future__ import annotations

import copy
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from models import task
from test_elastic_checkpoints import life
from test_elastic_checkpoints import one_thread as one_thread  # a fixture
from test_ties import knotted
from torch import nn

import atoll
from atoll.checkpoint.places import open_place
from atoll.elastic.flat import flatten
from atoll.elastic.oracle import Oracle
from atoll.elastic.task import Task
from atoll.elastic.ties import plans
from atoll.errors import CheckpointError, MismatchError, MisuseError
from atoll_launcher.main import main as command
from states import save

pytestmark = [pytest.mark.training, pytest.mark.simulation]

STEPS = 3


def trained(one: Task) -> list[list[torch.Tensor]]:
    """After each step, each layer's flat parameters."""
    oracle, found = Oracle(one), []
    for _ in range(STEPS):
        oracle.train_step()
        found.append([layer.parameters.clone() for layer in oracle.layers])
    return found


def held(layers: Sequence[nn.Module]) -> list[torch.Tensor]:
    found = []
    for layer, plan in zip(layers, plans(layers), strict=True):
        parameters = dict(layer.named_parameters())
        found.append(flatten(plan.own, (parameters[p.name].detach() for p in plan.own)))
    return found


def same(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> bool:
    return all(map(torch.equal, found, wanted)) and len(found) == len(wanted)


@pytest.mark.parametrize("which", ["plain", "tied", "knotted"])
def test_the_newest_whole_one_is_what_was_trained(which: str, tmp_path: Path) -> None:
    one = knotted() if which == "knotted" else task(vshards=6, tied=which == "tied")
    fresh = copy.deepcopy(list(one.layers))
    life(one, "abc", tmp_path, steps=STEPS).run()
    wanted = trained(one)
    assert not same(held(fresh), wanted[-1])
    assert atoll.load_layers(str(tmp_path), fresh) == STEPS
    assert same(held(fresh), wanted[-1])


def test_what_is_damaged_or_torn_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = task(vshards=6)
    fresh = copy.deepcopy(list(one.layers))
    life(one, "abc", tmp_path, steps=STEPS).run()
    wanted = trained(one)
    (newest,) = (tmp_path / "part-00001").glob(f"round-{STEPS:010}-*")
    shutil.rmtree(newest)
    assert atoll.load_layers(f"{tmp_path}/", fresh) == STEPS - 1
    assert same(held(fresh), wanted[-2])

    (file,) = (tmp_path / "part-00002").glob(f"round-{STEPS - 1:010}-*/p-*.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        assert atoll.load_layers(str(tmp_path), fresh) == STEPS - 2
    assert f"step {STEPS - 1} is passed over" in caplog.text
    assert same(held(fresh), wanted[-3])


def test_what_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    one = task(vshards=6)
    life(one, "ab", tmp_path / "run", steps=1).run()
    save(open_place(str(tmp_path / "diloco" / "part-00000")), 10)
    for name in ("run", "diloco"):
        other = copy.deepcopy(list(one.layers[:-1]))
        before = held(other)
        with pytest.raises((MismatchError, MisuseError)) as raised:
            atoll.load_layers(str(tmp_path / name), other)
        assert "\n" not in str(raised.value)
        assert same(held(other), before)
    with pytest.raises(CheckpointError, match="no checkpoint of an elastic island"):
        atoll.load_layers(str(tmp_path / "nothing"), one.layers)
    shutil.rmtree(tmp_path / "run" / "part-00001")
    with pytest.raises(CheckpointError, match="of none of 1 checkpoints all parts are there"):
        atoll.load_layers(str(tmp_path / "run"), one.layers)


def test_the_command_line_shows_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    life(task(vshards=6), "abc", tmp_path, steps=STEPS).run()

    def shown(what: str) -> tuple[int, list[list[str]], list[str]]:
        code = command(["checkpoints", what, str(tmp_path)])
        lines = capsys.readouterr().out.splitlines()[2:]
        return code, [line.split()[:2] for line in lines], lines

    code, rows, lines = shown("verify")
    assert (code, rows) == (0, [[str(step), "whole"] for step in (3, 2, 1)])
    assert lines[0].endswith("part-*/round-0000000003-*")
    (newest,) = (tmp_path / "part-00001").glob(f"round-{STEPS:010}-*")
    shutil.rmtree(newest)
    (file,) = (tmp_path / "part-00002").glob("round-0000000002-*/m-*.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    (manifest,) = (tmp_path / "part-00000").glob("round-0000000001-*/manifest.json")
    manifest.write_text("")
    code, _, lines = shown("verify")
    assert code == 6
    assert lines[0].split()[:3] == ["3", "in", "part"]
    rows = [line.split()[:2] for line in lines[1:4]]
    assert rows == [["2", "DAMAGED"], ["1", "in"], ["1", "DAMAGED"]]  # the one by itself
    told = "\n".join(lines[4:])
    assert "no part of worker 1" in told
    assert f"part-00002/{file.parent.name}: m-00000.safetensors" in told
    assert f"part-00000/{manifest.parent.name}: " in told
    assert "not JSON" in told

    assert command(["export", str(tmp_path), "--to", str(tmp_path / "out")]) == 2
    assert "atoll.load_layers puts it into a model" in capsys.readouterr().err

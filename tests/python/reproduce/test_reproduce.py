"""The evidence's harness: its NumPy kernels, its islands, and every method for a few steps."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from atoll import _core

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench/python/reproduce"))
import kernels
import report
import train
from islands import Data, Islands
from settings import EXPERIMENTS, RUNS, Size

TINY = Size(
    pretrain=0.0,
    layers=4,
    heads=2,
    width=32,
    block=16,
    batch=2,
    steps=60,
    validation_blocks=16,
    evaluations=3,
    corpus_bytes=50_000,
)
CPU = torch.device("cpu")
LEARNING = [
    "dp",
    "streaming-fp4-overlap5",
    "streaming-fp4-reduce",
    "noloco",
    "sparseloco-median",
    "eager",
    "delayed",
    "drop-half-lost",
    "drop-half-late",
    "churn-4-2-4",
]


def vectors(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(count, generator=generator) for _ in range(3)]


@pytest.mark.parametrize("count", [1, 255, 4099])
def test_the_numpy_kernels_are_the_cores_to_the_bit(count: int) -> None:
    a, b, c = vectors(count)
    found: list[list[np.ndarray]] = []
    for module in (_core, kernels.stand_in()):
        outs = [torch.zeros(count) for _ in range(3)]
        module.nesterov_step(
            outs[0].data_ptr(),
            outs[1].data_ptr(),
            a.data_ptr(),
            b.data_ptr(),
            c.data_ptr(),
            count,
            1 / 3,
            0.7,
            0.9,
        )
        module.descend(outs[2].data_ptr(), a.data_ptr(), b.data_ptr(), count, 1 / 3, 0.9)
        at = torch.arange(count - 1, -1, -2)
        values = c[: len(at)].contiguous()
        module.scatter_add(
            outs[2].data_ptr(), count, at.data_ptr(), values.data_ptr(), len(at), 0.3
        )
        found.append([out.numpy() for out in outs])
    for core, stand_in in zip(*found, strict=True):
        np.testing.assert_array_equal(core, stand_in)


def test_the_numpy_fp4_is_the_cores_to_the_bit() -> None:
    random = np.random.default_rng(5)
    x = random.standard_normal(1000).astype(np.float32)
    x[256:512] *= np.exp2(random.integers(-140, 120, 256)).astype(np.float32)
    x[512:768] = 0
    x[900:910] = np.float32(np.sqrt(2)) * np.exp2(np.arange(-9, 1, dtype=np.float32))
    x[910:920] = np.nextafter(x[900:910], np.float32(9))
    through = kernels.through("fp4", torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(through.view(np.uint32), kernels.numpy_fp4(x).view(np.uint32))


def test_the_direct_plan_in_fp32_is_the_mean_and_its_parts_are_the_cores() -> None:
    deltas = [torch.randn(3000, generator=torch.Generator().manual_seed(m)) for m in range(4)]
    mean = torch.stack(deltas).mean(dim=0)
    torch.testing.assert_close(kernels.directly_reduced("fp32", deltas), mean)
    bounds = _core.part_bounds(3000, 4, "fp4")
    found = kernels.directly_reduced("fp4", deltas)
    for owner in range(4):
        part = slice(bounds[owner], bounds[owner + 1])
        total = deltas[owner][part]
        for behind in (1, 2, 3):
            total = total + kernels.through("fp4", deltas[(owner - behind) % 4])[part]
        assert torch.equal(found[part], kernels.through("fp4", total / 4))


@pytest.mark.parametrize("count", [1, 16, 17, 31, 33, 256, 1000])
def test_the_bytes_are_the_cores(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [_core.encoded_bytes(codec, count) for codec in ("fp32", "fp4")]
    monkeypatch.setattr(kernels, "CORE", "numpy")
    assert [kernels.encoded_bytes(codec, count) for codec in ("fp32", "fp4")] == wanted


def test_islands_train_as_models_of_their_own_do() -> None:
    """Batched over islands, against the plain model with AdamW, fed one island's samples."""
    islands, data = Islands(TINY, 1, 1e-2, CPU), Data(TINY, 1, CPU)
    plain = Islands(TINY, 1, 1e-2, CPU)._model
    inner = torch.optim.AdamW(
        [
            {"params": [p for p in plain.parameters() if p.dim() >= 2], "weight_decay": 0.1},
            {"params": [p for p in plain.parameters() if p.dim() < 2], "weight_decay": 0.0},
        ],
        lr=1e-2,
        betas=TINY.betas,
    )
    for step in range(3):
        tokens = data.take(step * 8, 4, 2)
        losses = islands.inner_step(tokens, 1e-2, averaged=False)
        loss = plain.loss(tokens[2, :, :-1], tokens[2, :, 1:])
        torch.testing.assert_close(losses[2], loss.detach(), rtol=1e-4, atol=1e-5)
        inner.zero_grad()
        loss.backward()
        inner.step()
    named = dict(plain.named_parameters())
    found = torch.cat([named[name].detach().flatten() for name in islands.names])
    torch.testing.assert_close(islands.gather()[2], found, rtol=1e-3, atol=1e-5)
    assert not torch.equal(islands.gather()[1], islands.gather()[2])


def test_every_experiment_names_runs_that_there_are() -> None:
    for experiment in EXPERIMENTS.values():
        assert set(experiment.runs) <= set(RUNS)
        for goal in experiment.goals:
            assert {goal.run, *goal.reference} <= set(experiment.runs)
    assert {name for each in EXPERIMENTS.values() for name in each.runs} == set(RUNS)


@pytest.mark.training
@pytest.mark.parametrize("name", LEARNING)
def test_every_method_learns_and_repeats_itself(name: str) -> None:
    found = train.train(name, 3, TINY, CPU)
    assert found["validation_loss"] < 5.4 < float(np.log(256))  # a uniform guess
    assert len(found["curve"]) == 3
    assert found["sent_bytes"] > 0
    if name in ("noloco", "drop-half-late"):
        again = train.train(name, 3, TINY, CPU)
        assert again["validation_loss"] == found["validation_loss"]


@pytest.mark.training
def test_the_page_has_every_experiment(tmp_path: Path) -> None:
    size = replace(TINY, steps=30)
    names = ("dp", "diloco", "noloco", "sparseloco")
    for name in names:
        found = train.train(name, 1, size, CPU)
        (tmp_path / f"{name}-seed1.json").write_text(json.dumps(found))
    allocated = train.gradients_of(1, size, CPU, 2)
    assert all(one["ratio"] >= 1 for one in allocated["families"].values())
    (tmp_path / "lgreco-seed1.json").write_text(json.dumps(allocated))
    report.write(tmp_path, tmp_path / "results.md")
    text = (tmp_path / "results.md").read_text()
    assert "(./diloco.svg)" in text
    for name, experiment in EXPERIMENTS.items():
        assert f"make reproduce-{name}" in text
        assert (tmp_path / f"{name}.svg").is_file() is (name != "lgreco")
        for goal in experiment.goals:
            if goal.run in names:
                assert f"- {goal.run} within {goal.within:.0%} of" in text

"""Settings that cannot work are refused with the bound and the number; what is not finite stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from churn import Island, Job, Model

import atoll
from atoll.errors import MisuseError, NotFinite

pytestmark = pytest.mark.processes

GROWING = atoll.AdaptiveBatchSize(cap=64)

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("DiLoCo", {"sync_every": 0}, "sync_every must be at least 1, not 0"),
    ("DiLoCo", {"outer_lr": 0.0}, r"outer_lr must be above 0, not 0\.0"),
    ("DiLoCo", {"outer_momentum": 1.0}, r"outer_momentum must be in \[0, 1\), not 1\.0"),
    ("DiLoCo", {"overlap": "eagerly"}, 'must be None, "delayed" or "eager", not \'eagerly\''),
    ("DiLoCo", {"codec": "int9"}, "codec 'int9' is not known; did you mean 'int8'"),
    ("DiLoCo", {"error_feedback": True}, "error_feedback is for a codec"),
    ("DiLoCo", {"error_feedback": "ef22", "codec": "int8"}, "'ef22' is not known; did you mean"),
    ("DiLoCo", {"error_feedback": "ef21"}, "are for a codec; name one"),
    (
        "DiLoCo",
        {"error_feedback": "ef21", "codec": "int8", "overlap": "eager"},
        "rounds without an overlap",
    ),
    ("DiLoCo", {"adaptive_batch": GROWING, "codec": "int8"}, "needs exact norms"),
    ("DiLoCo", {"adaptive_batch": GROWING, "overlap": "delayed"}, "wait for their exchange"),
    ("DiLoCo", {"allocation": 0, "codec": "int8"}, "at least 1 round, not 0"),
    ("DiLoCo", {"allocation": 5, "codec": "fp8"}, "chooses among .*; codec is 'fp8'"),
    (
        "DiLoCo",
        {"error_feedback": "econtrol", "feedback_eta": 2.0, "codec": "int8"},
        r"feedback_eta must be in \[0, 1\], not 2\.0",
    ),
    ("DiLoCo", {"weights": "token"}, "weights 'token' is not known; did you mean 'tokens'"),
    ("DiLoCo", {"every": "60"}, "every must be a time like .*, not '60'"),
    ("DiLoCo", {"straggler_s": -1.0}, r"straggler_s must be above 0, not -1\.0"),
    ("DiLoCo", {"straggler_s": 1.0, "overlap": "eager"}, "rounds that wait for their exchange"),
    ("StreamingDiLoCo", {"fragments": 4}, "4 fragments .* need 4 blocks, the model has 3"),
    ("StreamingDiLoCo", {"fragments": 3, "sync_every": 3}, "must be at least 4"),
    (
        "StreamingDiLoCo",
        {"fragments": 3, "overlap": 100},
        r"overlap must be in \[0, 100\), the period, not 100",
    ),
    ("StreamingDiLoCo", {"fragments": 3, "mixing": 1.5}, r"mixing must be in \[0, 1\], not 1\.5"),
    ("SparseLoCo", {"k": 5000}, r"k must be in \[1, 4096\].*, not 5000"),
    ("SparseLoCo", {"k": 2000}, "k = 2000 .* more than the dense .*; take k <= 621"),
    ("SparseLoCo", {"residual_decay": 2.0}, r"residual_decay must be in \[0, 1\], not 2\.0"),
    ("NoLoCo", {"gamma": 1.6}, r"gamma must be in \(0, 1\.5\) for alpha 0\.5 .*, not 1\.6"),
    ("NoLoCo", {"deadline_s": 0.0}, r"deadline_s must be above 0, not 0\.0"),
]


def test_what_is_refused() -> None:
    with atoll.join({"metrics_port": -1}) as session:
        for kind, options, message in REFUSED:
            model = Model()
            inner = torch.optim.SGD(model.parameters(), lr=0.1)
            with pytest.raises(MisuseError, match=message):
                getattr(atoll, kind)(session, model, inner, **options)


METHODS: dict[str, dict[str, Any]] = {
    "DiLoCo": {},
    "DiLoCo eager": {"overlap": "eager"},
    "StreamingDiLoCo": {"fragments": 3, "overlap": 2},
    "SparseLoCo": {},
    "NoLoCo": {"deadline_s": 5.0},
}


@pytest.mark.parametrize("name", METHODS)
def test_one_islands_nan_stays_there_and_is_mended(name: str) -> None:
    """Once in a round in the middle; afterwards everybody is finite and the island contributes."""

    def make(session: Any, model: Any, inner: Any) -> Any:
        kind = getattr(atoll, name.split()[0])
        return kind(session, model, inner, sync_every=6, **METHODS[name])

    def on_step(job: Job, island: Island, round_: int, step: int) -> None:
        assert island.model is not None
        if island is job.islands[1] and len(island.sums) == 15:
            with torch.no_grad():
                for parameter in island.model.parameters():
                    parameter[0] = float("nan")

    with Job(make, rounds=8, founders=2, on_step=on_step) as job:
        job.wait()
        for island in job.islands:
            assert island.model is not None
            assert island.method is not None
            assert all(bool(torch.isfinite(p).all()) for p in island.model.parameters())
            assert bool(torch.isfinite(island.method.outer_parameters()).all())
        if job.islands[0].method.consistency == "identical":  # type: ignore[union-attr]
            assert job.unequal() == []
        assert job.islands[1].contributed[-1][1]


def test_an_island_that_is_never_finite_again_leaves_and_the_others_go_on() -> None:
    def make(session: Any, model: Any, inner: Any) -> Any:
        return atoll.DiLoCo(session, model, inner, sync_every=2)

    def on_step(job: Job, island: Island, round_: int, step: int) -> None:
        assert island.model is not None
        if island is job.islands[1] and round_ >= 2:
            with torch.no_grad():
                island.model.embedding.weight[0] = float("inf")  # type: ignore[union-attr,index]

    with Job(make, rounds=8, founders=2, on_step=on_step) as job:
        with pytest.raises(NotFinite, match="not finite in 3 exchanges in a row"):
            job.wait()
        first = job.islands[0]
        assert first.error is None
        assert sorted(first.rounds) == list(range(1, 9))


def test_a_broken_inner_optimizer_begins_anew() -> None:
    with atoll.join({"metrics_port": -1}) as session:
        model = torch.nn.Linear(3, 1)
        inner = torch.optim.AdamW(model.parameters(), lr=0.01)
        outer = atoll.DiLoCo(session, model, inner, sync_every=2)
        for step in range(6):
            loss = model(torch.ones(1, 3)).sum() * (float("nan") if step == 1 else 1.0)
            loss.backward()
            inner.step()
            inner.zero_grad()
            outer.step(loss)
        assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
        assert outer.round == 3


def test_too_many_members_for_sparse_payloads_are_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from atoll.methods import sparse

    assert 73 < sparse.break_even_members(64) < 74
    monkeypatch.setattr(sparse, "break_even_members", lambda k: 0.5)
    with atoll.join({"metrics_port": -1}) as session:
        model = Model()
        inner = torch.optim.SGD(model.parameters(), lr=0.1)
        outer = atoll.SparseLoCo(session, model, inner, sync_every=1)
        outer.step()
        outer.step()
    (told,) = [record.getMessage() for record in caplog.records if "members:" in record.message]
    assert told.startswith("1 members: from 0 on an int8 ring all-reduce")

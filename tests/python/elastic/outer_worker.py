"""A worker of one of several elastic islands of an outer method, in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from models import SEQUENCES, VOCABULARY, task
from worker_process import Death, Killer, digests

import atoll
from atoll.elastic.identity import key
from atoll.elastic.keyed import generator
from atoll.elastic.outer import DiLoCo
from atoll.elastic.task import Task

ISLANDS = ("east", "west")
STEPS, EVERY, LR, MOMENTUM = 6, 2, 0.7, 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Ports of the island's own coordinator and of the outer job's."""

    island: str
    inner: int
    outer: int


def task_of(island: str) -> Task:
    """Islands have other data and other draws; the model begins the same."""
    number = ISLANDS.index(island)

    def batch(step: int, micro_batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = torch.randint(
            VOCABULARY, (SEQUENCES, 8), generator=generator(key(number, step, micro_batch))
        )
        return tokens[:, :-1], tokens[:, 1:]

    return replace(task(blocks=2, micro_batches=4, vshards=6), seed=number, batch=batch)


def joining(
    port: int, name: str, more: Mapping[str, object] | None = None
) -> Callable[[], atoll.Session]:
    settings = {"coordinator": f"127.0.0.1:{port}", "job": "reef", "island": name, "probe": False}
    return lambda: atoll.join({**settings, **(more or {})})


def run(
    where: Where,
    name: str,
    out: Path,
    deaths: tuple[Death, ...],
    leaves_at: int = STEPS,
    checkpoints: str | None = None,
    steps: int = STEPS,
) -> None:
    """Trains, and writes what it ends with to `out`/`name`.json. leaves_at: told to after so many
    steps. checkpoints: a folder for all islands' checkpoints, of every step."""
    torch.set_num_threads(1)
    killer = Killer(deaths, out / f"{name}.died")
    told = task_of(where.island)
    settings: dict[str, object] = {}
    if checkpoints is not None:
        settings["checkpoint_url"] = f"{checkpoints}/{where.island}"
        settings |= {"checkpoint_every": 1, "checkpoint_keep": 1}
    session = joining(where.inner, name, settings)()
    island = atoll.ElasticIsland(
        session,
        layers=told.layers,
        micro_batches=told.micro_batches,
        pipeline=2,
        batch=told.batch,
        loss=told.loss,
        tokens=told.tokens,
        seed=told.seed,
        optimizer=told.optimizer,
        learning_rate=told.learning_rate,
        max_norm=told.max_norm,
        vshards=told.vshards,
        outer=DiLoCo(
            join=joining(where.outer, name),
            island=where.island,
            islands=ISLANDS,
            every=EVERY,
            lr=LR,
            momentum=MOMENTUM,
        ),
        observe=killer,
    )
    killer.island = island
    losses = {}
    while island.step < steps and not island.over:
        if island.step == leaves_at:
            session.drain("the island is needed elsewhere")
        loss = island.train_step()
        losses[island.step] = loss
    island.close()
    worker = island.member.worker
    found = {
        "losses": losses,
        "step": island.step,
        "rounds": worker.rounds,
        "owned": digests(worker.owned),
        "shadows": digests(worker.shadows),
    }
    (out / f"{name}.json.part").write_text(json.dumps(found))
    (out / f"{name}.json.part").rename(out / f"{name}.json")
    session.close()

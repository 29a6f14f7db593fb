"""A worker of an elastic island in a process of its own, which may be told when to die."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from models import task

import atoll
from atoll.elastic.layout import Layout
from atoll.elastic.requests import Expect, Meet, Outside, Receive, Request, Send, Watch
from atoll.elastic.stage_worker import Shard

PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """SIGKILL of whoever has this place in the layout of the first of these epochs, at its nth
    request of this kind in any of them: the first part of the key of what is sent, or what is
    gathered."""

    what: str
    nth: int
    stage: int = 0
    position: int = 0
    epochs: tuple[int, ...] = (1,)


def sent_by_links(island: Any, session: Any) -> dict[str, list[int]]:
    """By link: bytes at the socket, of tensors by class, and of texts that others may have passed
    on, once all that is on its way has left."""
    end = time.monotonic() + PATIENCE_S
    while island._links._sends:
        assert time.monotonic() < end, "a tensor does not leave"
        time.sleep(0.005)
        island._links._count_sent()
    by_class: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
    for (what, worker), count in island._links.sent_bytes.items():
        by_class[what == "gathered"][worker] += count
    return {
        link.peer.hex(): [link.sent_bytes, *(known[link.peer.hex()] for known in by_class.values())]
        for link in session.engine.stats().links
    }


def wait_for_writers(out: Path, workers: int) -> None:
    end = time.monotonic() + PATIENCE_S
    while len(list(out.glob("*.json"))) < workers:
        assert time.monotonic() < end, f"{workers} workers have trained, and not all have written"
        time.sleep(0.005)


def kind_of(request: Request) -> str:
    match request:
        case Send(key=key):
            return str(key[0])
        case Outside(request=inner):
            return kind_of(inner)
        case Expect() | Receive() | Meet() | Watch():
            return ""
    return request.what


class Killer:
    """Observes a worker's requests, and kills it when its time has come."""

    def __init__(self, deaths: tuple[Death, ...], marker: Path) -> None:
        self.island: atoll.ElasticIsland | None = None
        self._seen = dict.fromkeys(deaths, 0)
        self._layouts: dict[int, Layout] = {}
        self._marker = marker

    def __call__(self, request: Request) -> None:
        island = self.island
        layout = island.layout if island is not None else None
        if island is None or layout is None:
            return
        self._layouts.setdefault(layout.epoch, layout)
        for death in self._seen:
            if layout.epoch not in death.epochs or kind_of(request) != death.what:
                continue
            known = self._layouts.get(death.epochs[0])
            workers = known.stages[death.stage].workers if known is not None else ()
            if workers[death.position : death.position + 1] == (island.member.name,):
                self._seen[death] += 1
                if self._seen[death] == death.nth:
                    self._marker.write_text(repr(time.monotonic()))
                    os.kill(os.getpid(), signal.SIGKILL)


def digests(table: dict[tuple[int, int], Shard]) -> dict[str, object]:
    """By vshard: [version, digests of its slots]."""
    return {f"{a}.{b}": [s.version, dict(s.copy().slots)] for (a, b), s in table.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What happens to the workers of one job. `size_at`: before the step of this number all wait
    until the view has so many members. checkpoint_url: with a checkpoint every two steps.
    capability: which worker uses which of torch's instruction sets. leave_together: nobody leaves,
    and closes the others' links, before all have written what they end with."""

    steps: int
    pipeline: int = 2
    chunks: int = 1
    deaths: tuple[Death, ...] = ()
    size_at: tuple[int, int] | None = None
    checkpoint_url: str | None = None
    tolerant: bool = False
    capability: tuple[str, str] = ("", "")
    tied: bool = False
    leave_together: bool = False


def run(port: int, name: str, out: Path, story: Story) -> None:
    """Trains `models.task` and writes what it ends with to `out`/`name`.json."""
    if name == story.capability[0]:
        os.environ["ATEN_CPU_CAPABILITY"] = story.capability[1]
    torch.set_num_threads(1)
    killer = Killer(story.deaths, out / f"{name}.died")
    told = task(blocks=2, micro_batches=4, vshards=6, tied=story.tied)
    settings = {"coordinator": f"127.0.0.1:{port}", "job": "reef", "island": name, "probe": False}
    if story.checkpoint_url is not None:
        settings |= {"checkpoint_url": story.checkpoint_url, "checkpoint_every": 2}
    session = atoll.join(settings)
    island = atoll.ElasticIsland(
        session,
        layers=told.layers,
        micro_batches=told.micro_batches,
        pipeline=story.pipeline,
        chunks=story.chunks,
        batch=told.batch,
        loss=told.loss,
        tokens=told.tokens,
        seed=told.seed,
        optimizer=told.optimizer,
        learning_rate=told.learning_rate,
        max_norm=told.max_norm,
        vshards=told.vshards,
        tolerant=story.tolerant,
        observe=killer,
    )
    killer.island = island
    losses, times, layouts = {}, {}, {}
    at_step, size = story.size_at or (-1, 0)
    while island.step < story.steps:
        if island.step == at_step:
            (out / f"{name}.waits").touch()
            session._client.wait(lambda now: len(now.view.members) == size, PATIENCE_S)
        loss = island.train_step()
        losses[island.step], times[island.step] = loss, time.monotonic()
        assert island.layout is not None
        layouts[island.layout.epoch] = island.layout.encode().decode()
    island.close()
    worker = island.member.worker
    found = {
        "losses": losses,
        "times": times,
        "owned": digests(worker.owned),
        "shadows": digests(worker.shadows),
        "kinds": len(island.member.kinds),
        "epoch": island.layout.epoch,
        "workers": len(island.layout.workers),
        "recoveries": len(island.member.recoveries),
        "critical": sum(m.critical for r in island.member.recoveries for m in r.moves),
        "layouts": layouts,
        "sent_by_links": sent_by_links(island, session),
        "sent_bytes": island.sent_bytes,
    }
    (out / f"{name}.json.part").write_text(json.dumps(found))
    (out / f"{name}.json.part").rename(out / f"{name}.json")
    if story.leave_together:
        wait_for_writers(out, len(island.layout.workers))
    session.close()

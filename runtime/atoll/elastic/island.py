"""`atoll.ElasticIsland`: a model as a list of layers, trained by workers that may die any moment.

The user's loop stays the user's:

    session = atoll.join()
    island = atoll.ElasticIsland(session, layers=layers, micro_batches=16, pipeline=2, ...)
    while island.step < 1000 and not island.over:
        loss = island.train_step()
    island.close()
    session.close()
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from atoll import __version__
from atoll.checkpoint.write import Origin
from atoll.elastic.adamw import AdamW
from atoll.elastic.durable import Durable
from atoll.elastic.fingerprint import fingerprint
from atoll.elastic.links import Links
from atoll.elastic.member import Member
from atoll.elastic.outer import DiLoCo
from atoll.elastic.spans import Notice, Spans
from atoll.elastic.task import Batch, Loss, Task
from atoll.errors import MisuseError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from atoll.elastic.layout import Layout
    from atoll.elastic.planner import Costs
    from atoll.elastic.requests import Request
    from atoll.session import Session


MIXED = (
    "workers compute different numbers: from here on the trajectory depends on who computes what"
)

REPORT_EVERY_S = 0.5
"""Steps may be much quicker than anybody looks."""


class ElasticIsland:
    """One worker's part. All workers of a job call the same with the same arguments.

    layers: the model; each takes one tensor and returns one, and begins equal on all workers (seed
    torch before they are made); a parameter of several layers is trained as one. micro_batches: of
    a step. pipeline: stages. batch(step, micro-batch) -> (inputs, targets), a pure function.
    loss(outputs, targets) -> the sum over tokens. tokens: of a step. vshards: parts of a layer's
    optimizer state; 12 are even for 2, 3, 4 and 6 workers a stage. schedule: "1f1b" or "gpipe".
    chunks: with 2 or more every worker holds so many stages, in turns with the others (interleaved
    1F1B): less waiting, more tensors between workers, more activations kept. timeout_s: the most
    that anything may take.
    outer: this island is one member of an outer method, whose rounds come between steps.
    tolerant: workers whose layers compute other numbers (other processors) may take part; then the
    trajectory depends on who computes what, and all copies of a state are still equal.

    Workers that come later join at a step's end. With the session's `checkpoint_url` every worker
    writes what it owns, every `checkpoint_every` steps, and a run begins at the newest checkpoint,
    with any number of workers. Raises MisuseError for what cannot be, and
    MismatchError where this worker's task or arithmetic is another than that of the others.
    """

    def __init__(
        self,
        session: Session,
        *,
        layers: Sequence[nn.Module],
        micro_batches: int,
        pipeline: int,
        batch: Batch,
        loss: Loss,
        tokens: int,
        seed: int = 0,
        optimizer: AdamW | None = None,
        learning_rate: Callable[[int], float] | None = None,
        max_norm: float | None = 1.0,
        vshards: int = 12,
        schedule: str = "1f1b",
        chunks: int = 1,
        costs: Costs | None = None,
        timeout_s: float = 60.0,
        outer: DiLoCo | None = None,
        tolerant: bool = False,
        observe: Callable[[Request], None] = lambda request: None,
    ) -> None:
        if not 1 <= pipeline <= len(layers):
            raise MisuseError(
                f"{pipeline} stages for {len(layers)} layers: each stage needs a layer at least"
            )
        if chunks < 1 or pipeline * chunks > len(layers):
            raise MisuseError(
                f"{pipeline} stages of {chunks} chunks for {len(layers)} layers: each chunk needs "
                "a layer at least"
            )
        if chunks > 1 and pipeline == 1:
            raise MisuseError(f"{chunks} chunks need a pipeline of 2 at least to take turns in")
        task = Task(
            seed=seed,
            micro_batches=micro_batches,
            vshards=vshards,
            layers=layers,
            batch=batch,
            loss=loss,
            tokens=tokens,
            optimizer=optimizer or AdamW(),
            learning_rate=learning_rate,
            max_norm=max_norm,
            outer=outer,
        )
        self._session = session
        self._next_report_s = 0.0
        self._mixed = False
        self._epoch = 0
        self._tokens = tokens
        self._spans = Spans(tokens=tokens, clock=time.monotonic)

        def watch(request: Request) -> None:
            self._spans.request(request)
            observe(request)

        def interrupted(epoch: int) -> None:
            is_new, self._epoch = epoch != self._epoch, epoch
            self._spans.interrupted(session.progress.fence_s if is_new else 0.0)

        self._links = Links(
            session,
            timeout_s=timeout_s,
            observe=watch,
            interrupted=interrupted,
            outside=outer.join if outer else None,
        )
        settings = session.settings
        self._durable: Durable | None = None
        if settings.checkpoint_url is not None:
            if settings.shards > 1:
                raise MisuseError(
                    "elastic islands of several processes each have no checkpoints: start every "
                    "worker as an island of its own (atoll run --elastic), or leave out "
                    "checkpoint_url"
                )
            self._durable = Durable(
                settings.checkpoint_url,
                Origin(job=settings.job, island=session.island, software=__version__),
                every=settings.checkpoint_every,
                keep=settings.checkpoint_keep,
                outer=outer,
                tell=session._reporter.notice,
            )
        self.member = Member(
            session.peer_id.hex(),
            task,
            pipeline=pipeline,
            arithmetic=fingerprint(layers=not tolerant),
            schedule=schedule,
            chunks=chunks,
            costs=costs,
            durable=self._durable,
            leaving=lambda: session.leaving,
            kind=fingerprint(),
        )
        """This process's part, a worker that others may outlive."""
        self._links.run(self.member.enter())

    @property
    def step(self) -> int:
        """How many steps are done, here and everywhere."""
        return self.member.step

    @property
    def over(self) -> bool:
        """End the loop: this worker was told to leave (SIGTERM, `atoll drain`), and its state has
        moved to the others; or all were, and all end after this step."""
        return self.member.released or self.member.over

    @property
    def layout(self) -> Layout | None:
        """Who does what at present."""
        return self.member.layout

    def train_step(self) -> float:
        """One step, whoever comes or goes in it; returns its loss, the same on all workers.

        Raises StateUnavailable when more was lost than the copies can bear: go on from a
        checkpoint. PeerLost and ViewChanged are dealt with here.
        """
        loss = self._links.run(self.member.train_step())
        layout = self.member.layout
        assert layout is not None
        if self._durable is not None:
            self._durable.step_over(self.member.worker, layout)
        notices = self._spans.step_over(layout)
        if len(self.member.kinds) > 1 and not self._mixed:
            self._mixed = True
            notices.append(Notice(kind="layout", text=MIXED))
        for notice in notices:
            if layout.workers[0] == self.member.name:  # one speaks for all
                self._session._reporter.notice(notice.kind, notice.text)
        now_s = time.monotonic()
        if now_s >= self._next_report_s:
            step_s, share = self._spans.step_s, len(layout.workers)
            self._session.report(
                phase="training",
                round=self.step,
                loss=loss,
                tokens=self.step * self._tokens // share,
                tokens_per_s=self._tokens / share / step_s if step_s else 0.0,
            )
            self._next_report_s = now_s + REPORT_EVERY_S
        return loss

    @property
    def recovery(self) -> Mapping[str, float]:
        """Seconds of the last recovery here, by part (`spans`); empty: there was none."""
        return dict(self._spans.seconds)

    @property
    def sent_bytes(self) -> Mapping[str, int]:
        """What this worker has sent to others of its island, by class.

        input, gradient: between stages; nodes: of the gradients' sums; prepared: to backups;
        parameters: to the stage; state: of vshards that moved while a step ran; critical: of such
        that somebody waited for; gathered: texts. Each as often as it was sent; what a loss
        interrupted is not counted.
        """
        found: Counter[str] = Counter()
        for (kind, _), sent in self._links.sent_bytes.items():
            found[kind] += sent
        return found

    def parameters(self) -> dict[int, Tensor]:
        """The layers that this worker holds, by index: their flat parameters [n]. A parameter of
        several layers is in those of the first."""
        return {index: layer.parameters for index, layer in self.member.worker.layers.items()}

    def close(self) -> None:
        """Returns when no other worker needs this one's state any more. Then close the session."""
        if self.member.released:
            self._links.close()
            return
        self._links.run(self.member.finish())
        layout = self.member.layout
        if self._durable is not None and layout is not None:
            self._durable.step_over(self.member.worker, layout, last=True)
            self._durable.wait(self._session.settings.checkpoint_close_s)
        self._links.close()

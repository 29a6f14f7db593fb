"""Islands in threads of this process, which train, join and die at chosen steps.

The sessions, engines and the coordinator are real; a death closes an island's engine and stream
without a word. The inner steps are exact arithmetic on a model with blocks.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from harness import Coordinator

import atoll
from atoll.methods.method import OuterMethod
from atoll.session import Session
from atoll.state.manifest import digest

PATIENCE_S = 60.0
SCALE = 1 << 20

Make = Callable[[Session, torch.nn.Module, torch.optim.Optimizer], Any]


class Model(torch.nn.Module):
    """Three blocks and a rest."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embedding = torch.nn.Linear(width, 3)
        self.blocks = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(3))
        generator = torch.Generator().manual_seed(11)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))


class Numbers:
    def __init__(self, count: int = 1 << 16) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(float(index), device="cpu")


class Died(Exception):
    """This island is dead."""


@dataclass
class Island:
    """One island's run. digests: of the shared state by revision, as this island published it."""

    name: str
    digests: dict[int, str] = field(default_factory=dict)
    rounds: dict[int, str] = field(default_factory=dict)
    contributed: list[tuple[int, bool]] = field(default_factory=list)
    sent: dict[int, int] = field(default_factory=dict)
    """Bytes at the sockets, shared state apart, until the end of a round."""
    sums: list[float] = field(default_factory=list)
    """Of each step's batch: a step multiplies every parameter by 1 - sum / SCALE."""
    survived: list[BaseException] = field(default_factory=list)
    error: BaseException | None = None
    session: Session | None = None
    method: OuterMethod | None = None
    model: torch.nn.Module | None = None
    begun: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    def die(self) -> None:
        """Called by the island itself."""
        assert self.session is not None
        self.session._client.engine.close()
        self.session._client.close()
        raise Died


OnStep = Callable[["Job", Island, int, int], None]
"""(job, island, round, step of the round), before the step is counted."""


class Job:
    """A coordinator and its islands. Use as a context manager."""

    def __init__(
        self,
        make: Make,
        *,
        rounds: int | None,
        founders: int,
        on_step: OnStep = lambda job, island, round_, step: None,
        batch_size: int = 4,
        epochs: int | None = None,
        samples: int = 1 << 16,
        settings: dict[str, Any] | None = None,
        model: Callable[[], torch.nn.Module] = Model,
        survives: tuple[type[BaseException], ...] = (),
    ) -> None:
        self._make, self._rounds, self._on_step = make, rounds, on_step
        self._batch_size, self._epochs, self._samples = batch_size, epochs, samples
        self._settings, self._model = settings or {}, model
        self._survives = survives
        self.islands: list[Island] = []
        self._coordinator = Coordinator(min_islands=founders)
        self._founders = founders

    def __enter__(self) -> Job:
        self._coordinator.__enter__()
        for _ in range(self._founders):
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        for island in self.islands:
            if island.session is not None:
                with contextlib.suppress(Exception):
                    island.session.close()
        self._coordinator.__exit__()

    def start(self) -> Island:
        island = Island("abcdefghijklmnopqrstuvwxyz"[len(self.islands)])
        self.islands.append(island)
        island.thread = threading.Thread(target=self._run, args=(island,), daemon=True)
        island.thread.start()
        return island

    def join_now(self, beside: Island) -> Island:
        """Called by `beside` between two of its steps: one more island is about to enter.

        Returns when it is in the view, or when it is ready and waits for an op under way to end.
        """
        joiner = self.start()
        assert joiner.begun.wait(PATIENCE_S)
        assert joiner.session is not None
        assert beside.session is not None
        peer = joiner.session.peer_id
        with contextlib.suppress(atoll.errors.DeadlineExceeded):
            beside.session._client.wait(lambda now: peer in now.view.ids, 0.5)
        return joiner

    def wait(self) -> None:
        """Until all islands have come to their ends; raises what went wrong in any."""
        for island in list(self.islands):
            assert island.thread is not None
            island.thread.join(PATIENCE_S)
            assert not island.thread.is_alive(), f"{island.name} hangs: {self.describe()}"
        for island in self.islands:
            if island.error is not None and not isinstance(island.error, Died):
                raise island.error

    def describe(self) -> str:
        return "; ".join(
            f"{one.name}: step {len(one.sums)}, "
            + (
                f"revision {one.method._revision}, launched {one.method._launched}, "
                f"running {one.method.running}"
                if one.method is not None
                else "no method"
            )
            for one in self.islands
        )

    def unequal(self) -> list[int]:
        """Revisions of which islands published different states."""
        seen: dict[int, set[str]] = {}
        for island in self.islands:
            for revision, held in island.digests.items():
                seen.setdefault(revision, set()).add(held)
        return sorted(revision for revision, digests in seen.items() if len(digests) > 1)

    def _run(self, island: Island) -> None:
        try:
            self._train(island)
        except BaseException as error:  # noqa: BLE001 - the thread's top: raised by wait()
            island.error = error
            if island.session is not None and not isinstance(error, Died):
                island.session.__exit__(type(error), error, None)

    def _train(self, island: Island) -> None:
        model = island.model = self._model()
        inner = torch.optim.SGD(model.parameters(), lr=1.0)
        session = atoll.join(
            {
                "coordinator": f"127.0.0.1:{self._coordinator.port}",
                "job": "reef",
                "island": island.name,
                "metrics_port": -1,
                **self._settings,
            }
        )
        island.session = session
        self._watch(island, session)
        outer = island.method = self._make(session, model, inner)
        data = Numbers(self._samples)
        for batch in session.batches(
            data, batch_size=self._batch_size, rounds=self._rounds, epochs=self._epochs
        ):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.sub_(parameter * (batch.sum() / SCALE))
            island.sums.append(float(batch.sum()))
            self._on_step(self, island, outer.running, outer._tally.steps - outer._began.steps + 1)
            try:
                outer.step()
            except self._survives as error:
                island.survived.append(error)
        session.close()

    def _watch(self, island: Island, session: Session) -> None:
        """Notes what the island publishes and reports."""
        engine, over, ready = session.engine, session.round_over, session._client.ready

        class Watched:
            def __getattr__(self, name: str) -> Any:
                return getattr(engine, name)

            def publish(self, revision: int, buffers: Any, keep: Any) -> None:
                engine.publish(revision, buffers, keep)
                island.digests[revision] = digest(bytes(keep[1][0].numpy()))

        def round_over(**fields: Any) -> None:
            island.rounds[fields["round_"]] = fields["digest"]
            island.contributed.append((fields["round_"], fields["contributed"]))
            stats = engine.stats()
            sent = sum(link.sent_bytes for link in stats.links) - stats.donated_bytes
            island.sent[fields["round_"]] = sent
            over(**fields)

        def told_ready() -> None:
            ready()
            island.begun.set()

        session.round_over = round_over  # type: ignore[method-assign]
        session._client.ready = told_ready  # type: ignore[method-assign]
        watched = Watched()
        session.__class__ = type(
            "WatchedSession", (session.__class__,), {"engine": property(lambda self: watched)}
        )

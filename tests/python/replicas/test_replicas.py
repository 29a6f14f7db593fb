"""Replicas in threads of this process, with a real coordinator: joins in the middle of a step, and
what a loop may do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import pytest
import torch
from harness import Coordinator
from replica_worker import MICRO_BATCHES, Model, compute, held, loss_of, replica

import atoll
from atoll.errors import AtollError, DeadlineExceeded, MisuseError, TensorError, ViewChanged
from atoll.replicas.exchange import Exchange
from atoll.replicas.position import Position

pytestmark = pytest.mark.processes

PATIENCE_S = 60.0
STEPS = 6
PARAMETERS = 6


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def join(port: int, name: str) -> Any:
    return atoll.join(
        {
            "coordinator": f"127.0.0.1:{port}",
            "job": "reef",
            "island": name,
            "metrics_port": -1,
        }
    )


class Group:
    """Threads, each one a replica, which all raise what any of them raised."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def start(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - the thread's top: raised by wait()
                self._errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def wait(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE_S)
        if self._errors:
            raise self._errors[0]
        assert not any(thread.is_alive() for thread in self._threads)


def alone(batch: str) -> dict[int, str]:
    with atoll.join({"metrics_port": -1}) as session:
        model, ddp, optimizer = replica(session, batch)
        return run(model, ddp, optimizer, batch)


def run(model: Any, ddp: Any, optimizer: Any, batch: str) -> dict[int, str]:
    found = {}
    while ddp.step < STEPS:
        optimizer.zero_grad()
        compute(ddp, batch)
        optimizer.step()
        found[ddp.step] = held(model, optimizer.inner)
    return found


@pytest.mark.parametrize("batch", ["constant", "fixed"])
@pytest.mark.parametrize("place", range(PARAMETERS))
def test_somebody_comes_in_the_middle_of_a_step(
    batch: str, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one waits at a parameter's gradient in its third step; nobody's numbers differ."""
    states: dict[str, dict[int, str]] = {}
    entered: list[Position] = []
    group = Group()

    def joiner(port: int, told: threading.Event, peer: list[bytes]) -> None:
        with join(port, "c") as session:
            peer.append(session.peer_id)
            ready = session._client.ready
            session._client.ready = lambda: (ready(), told.set())
            stand_at = Exchange.stand_at

            def stands(self: Exchange, revision: int, position: Position) -> None:
                if self.session is session:
                    entered.append(position)
                stand_at(self, revision, position)

            monkeypatch.setattr(Exchange, "stand_at", stands)
            model, ddp, optimizer = replica(session, batch)
            states["c"] = run(model, ddp, optimizer, batch)

    def member(port: int, name: str) -> None:
        with join(port, name) as session:
            model, ddp, optimizer = replica(session, batch)
            done: list[bool] = []

            def halt(gradient: torch.Tensor) -> None:
                if ddp.step != 2 or done:
                    return
                done.append(True)
                told, peer = threading.Event(), list[bytes]()
                optimizer.publish()  # what the newcomer fetches first
                group.start(lambda: joiner(port, told, peer))
                assert told.wait(PATIENCE_S)
                with suppress(DeadlineExceeded):  # it comes in when the op under way is over
                    session._client.wait(lambda now: peer[0] in now.view.ids, 0.3)

            if name == "a":
                parameter = list(model.parameters())[place]
                parameter.register_post_accumulate_grad_hook(halt)
            states[name] = run(model, ddp, optimizer, batch)

    with one_thread(), Coordinator(min_islands=2) as coordinator:
        for name in "ab":
            group.start(lambda name=name: member(coordinator.port, name))
        group.wait()
    assert sorted(states["a"]) == list(range(1, STEPS + 1))
    assert states["a"] == states["b"]
    assert states["c"].items() <= states["a"].items()
    assert entered
    if batch == "constant" and place == 0:  # backward comes to it last: buckets were under way
        assert 0 < len(entered[-1].todo) < entered[-1].buckets
    if batch == "fixed":
        with one_thread():
            assert states["a"] == alone("fixed")


@pytest.mark.parametrize("error", [ViewChanged("it", 3, 2), DeadlineExceeded("its own")])
def test_an_op_that_fails_while_nobody_looks_says_with_what(error: AtollError) -> None:
    """A look is over; before the next one, the op is."""
    served: list[bool] = []

    class Late:
        def wait(self, timeout_s: float | None = None) -> Any:
            raise error if served else DeadlineExceeded("not over after 0.02 s")

        def done(self) -> bool:
            served.append(True)
            return True

    handle: Any = Late()
    with pytest.raises(type(error)) as caught:
        Exchange(cast("Any", None), [], channel=1)._waited(handle)
    assert caught.value is error


def test_a_step_by_hand() -> None:
    """Of two replicas: no_sync adds up, weights count, unused parameters are 0, scaled divides."""
    grads: dict[str, list[torch.Tensor]] = {}

    def work(port: int, name: str, options: dict[str, Any], weight: float) -> None:
        with join(port, name) as session:
            model = torch.nn.ModuleDict(
                {"used": torch.nn.Linear(3, 1, bias=False), "idle": torch.nn.Linear(2, 1)}
            )
            inner = torch.optim.SGD(model.parameters(), lr=0.0)
            ddp = atoll.FaultTolerantDDP(session, model, **options)
            ddp.weight = weight
            optimizer = atoll.FaultTolerantOptimizer(ddp, inner)
            x = torch.full((1, 3), float(ddp.slot + 1))
            with ddp.no_sync():
                model["used"](x).sum().backward()
            model["used"](x).sum().backward()
            assert optimizer.step()
            grads[f"{ddp.slot}"] = [
                parameter.grad.clone()
                for parameter in model.parameters()
                if parameter.grad is not None
            ]

    for options, wanted in (({}, (2 * 1 + 3 * 4) / 4), ({"batch": "scaled", "replicas": 4}, 6 / 4)):
        with Coordinator(min_islands=2) as coordinator:
            group = Group()
            weights = {}
            with_slot_weight = (1.0, 3.0)
            for name, weight in zip("ab", with_slot_weight, strict=True):
                weights[name] = weight
                group.start(
                    lambda name=name, weight=weight, options=options: work(
                        coordinator.port, name, options, weight
                    )
                )
            group.wait()
        used = grads["0"][0]
        assert torch.equal(used, grads["1"][0])
        # Who is slot 0 depends on who registered first.
        either = {wanted} if options else {wanted, (3 * 2 + 1 * 4) / 4}
        assert float(used[0, 0]) in either
        assert all(float(idle.abs().max()) == 0.0 for idle in grads["0"][1:])


def test_what_is_not_finite_is_left_out() -> None:
    with atoll.join({"metrics_port": -1}) as session:
        model, ddp, optimizer = replica(session, "constant")
        before = held(model, optimizer.inner)
        (loss_of(ddp, 0, 0) * float("inf")).backward()
        assert optimizer.step()
        assert (ddp.step, optimizer.skipped) == (1, 1)
        assert held(model, optimizer.inner) == before


def test_a_step_without_gradients_is_no_step() -> None:
    with atoll.join({"metrics_port": -1}) as session:
        _, ddp, optimizer = replica(session, "constant")
        assert not optimizer.step()
        assert ddp.step == 0


def test_misuse() -> None:
    with atoll.join({"metrics_port": -1}) as session:
        for options, message in (
            ({"batch": "fixd"}, "did you mean 'fixed'"),
            ({"batch": "fixed"}, 'micro_batches goes with batch="fixed"'),
            ({"replicas": 3}, 'replicas goes with batch="scaled"'),
            ({"batch": "scaled", "replicas": 0}, "replicas must be at least 1, not 0"),
            ({"bucket_mib": 0.0}, r"bucket_mib must be above 0, not 0\.0"),
        ):
            with pytest.raises(MisuseError, match=message):
                atoll.FaultTolerantDDP(session, Model(), **options)
        with pytest.raises(TensorError, match="is float64; gradients are added up in float32"):
            atoll.FaultTolerantDDP(session, Model().double())
        ddp = atoll.FaultTolerantDDP(session, Model())
        with pytest.raises(MisuseError, match="make the FaultTolerantOptimizer first"):
            _ = ddp.slot
        with pytest.raises(MisuseError, match='is for batch="fixed"'):
            next(ddp.micro_batches())
        atoll.FaultTolerantOptimizer(ddp, torch.optim.SGD(ddp.parameters(), lr=0.1))
        loss_of(ddp, 0, 0).backward()
        with pytest.raises(MisuseError, match="backward ran twice"):
            loss_of(ddp, 0, 0).backward()
    with atoll.join({"metrics_port": -1}) as session:
        ddp = atoll.FaultTolerantDDP(session, Model(), batch="fixed", micro_batches=MICRO_BATCHES)
        atoll.FaultTolerantOptimizer(ddp, torch.optim.SGD(ddp.parameters(), lr=0.1))
        with pytest.raises(MisuseError, match=r"iterate over ddp\.micro_batches"):
            loss_of(ddp, 0, 0).backward()
        with pytest.raises(MisuseError, match="by itself"), ddp.no_sync():
            pass

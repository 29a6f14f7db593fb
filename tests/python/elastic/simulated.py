"""Members of elastic islands on a simulated network: one seed, one history.

The members' real programs, the real numbers. Messages arrive in any order; a gathering commits by
the rules of views: when it is done at all members, or, after a loss, at all who survive. Members
learn of a new view at their next request, each when its turn comes; but who has gathered in the
view before waits until all of the new one gather for something, and it fails for all of them. With
an outer method workers of several islands are in one more view, and a loss shows in both, in any
order.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from atoll.elastic.member import Member
from atoll.elastic.requests import (
    Expect,
    Gather,
    Interrupted,
    Key,
    Meet,
    Outside,
    OutsideChanged,
    Receive,
    Request,
    Send,
    Watch,
)

MOST_TURNS = 40_000

Step = Callable[[], None]
Changed = type[Interrupted] | type[OutsideChanged]


class View:
    """The members of one job, and what is on its way between them."""

    def __init__(self, members: tuple[str, ...] = ()) -> None:
        self.number = 1
        self.members = members
        self.sent: dict[tuple[str, Key, str], deque[Tensor]] = {}
        self.told: dict[str, Gather] = {}
        self.void = False
        """Some of them in a view before."""
        self.gathered: set[str] = set()
        """Who has the result of the gathering under way, and has not heard that all have."""
        self.results: dict[str, dict[str, str] | None] = {}
        """Of a gathering that is committed, by who has not taken it yet; None: it was none, for
        some gathered for something else."""

    def install(self, members: tuple[str, ...]) -> None:
        """The next view. Those who are left go on with the gathering if all of them have it."""
        left = set(members) & set(self.members)
        if left and left <= self.gathered and self.complete():
            self._commit(left)
        self.number += 1
        self.members = members
        self.sent.clear()
        waiting = left - set(self.results)
        self.told = {name: told for name, told in self.told.items() if name in waiting}
        self.void = bool(self.told)
        self.gathered.clear()

    def complete(self) -> bool:
        return set(self.told) == set(self.members)

    def hear(self, name: str) -> None:
        self.gathered.add(name)
        if self.gathered == set(self.members):
            self._commit(self.gathered)
            self.told.clear()
            self.void = False
            self.gathered.clear()

    def _commit(self, names: set[str]) -> None:
        alike = not self.void and len({request.what for request in self.told.values()}) == 1
        result = {name: self.told[name].text for name in self.members} if alike else None
        self.results.update(dict.fromkeys(names, result))


@dataclass(slots=True)
class Port:
    """One worker in one view, and the view that it knows."""

    name: str
    view: View
    known: int
    expected: dict[tuple[str, Key], Expect] = field(default_factory=dict)
    alone: bool = False
    """Its gathering goes on, and nobody waits for it."""

    @property
    def stale(self) -> bool:
        return self.known != self.view.number

    def look(self) -> None:
        self.known = self.view.number
        self.expected.clear()

    def arrived(self, late: str) -> list[Expect]:
        return [
            expected
            for (source, key), expected in self.expected.items()
            if self.view.sent.get((source, key, self.name)) and key[0] != late
        ]


@dataclass(slots=True)
class Seat:
    """One member: its program, and what it waits for."""

    member: Member
    program: Generator[Request, object, None]
    inner: Port
    outer: Port | None = None
    waits: Request | None = None
    answer: object = None
    begun: bool = False


class Simulation:
    """All members of an island. `losses`: by step, what each member has returned of it."""

    def __init__(
        self,
        members: Sequence[Member],
        *,
        seed: int,
        steps: int,
        outer: View | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.rng = rng or random.Random(seed)
        self.steps = steps
        self.view = View(tuple(member.name for member in members))
        self.outer = outer
        self.losses: dict[int, dict[str, float]] = {}
        self.ended: list[Member] = []
        self.spoil: Callable[[Key, Tensor], None] = lambda key, tensor: None
        """May damage a tensor on its way."""
        self.after_step: Callable[[Member], None] = lambda member: None
        self.at_end: Callable[[Member], None] = lambda member: None
        self.late = ""
        """Tensors of this kind do not arrive while anybody can go on without them."""
        self.stalled: Callable[[], None] = lambda: None
        """Called when they have to."""
        self.seats = {member.name: self._seat(member) for member in members}

    @property
    def members(self) -> tuple[str, ...]:
        return self.view.members

    @property
    def over(self) -> bool:
        """All have agreed that nobody needs another any more: who comes now is alone."""
        finished = [
            name
            for name, seat in self.seats.items()
            if isinstance(seat.waits, Gather) and seat.waits.what == "finish"
        ]
        return bool(self.ended) or any(name in self.view.results for name in finished)

    def run(self, between: Callable[[int], None] = lambda turn: None) -> None:
        """Until all members have made all steps. Nothing may hang."""
        for turn in range(1, MOST_TURNS):
            if not self.seats:
                return
            between(turn)
            able = self.able()
            if not able and self.late:
                self.late = ""
                self.stalled()
                continue
            assert able, f"everybody waits: {[(n, s.waits) for n, s in self.seats.items()]}"
            self.rng.choice(able)()
        raise AssertionError("it goes on and on")

    def able(self) -> list[Step]:
        """What may happen next, in the order of the view."""
        return [
            step
            for name in self.members
            if name in self.seats
            for step in self._steps(self.seats[name])
        ]

    def _seat(self, member: Member) -> Seat:
        inner = Port(member.name, self.view, self.view.number)
        return Seat(member=member, program=self._user(member), inner=inner)

    def _user(self, member: Member) -> Generator[Request, object, None]:
        """What the processes of a job do."""
        yield from member.enter()
        while member.step < self.steps and not (member.released or member.over):
            loss = yield from member.train_step()
            self.losses.setdefault(member.step, {})[member.name] = loss
            self.after_step(member)
        if not member.released:
            yield from member.finish()
        self.at_end(member)

    def kill(self, *dead: str) -> None:
        """A new view without them."""
        for name in dead:
            self.seats.pop(name, None)
        self.view.install(tuple(name for name in self.members if name not in dead))

    def join(self, member: Member) -> None:
        self.view.install((*self.members, member.name))
        self.seats[member.name] = self._seat(member)

    # ---- what may happen to one member -----------------------------------------------------------

    def _steps(self, seat: Seat) -> list[Step]:
        found: list[Step] = []
        if seat.outer is not None and seat.outer.alone:
            found += self._gathering_alone(seat.outer)
        go = partial(self._go, seat)
        match seat.waits:
            case None:
                found.append(go)
            case Receive() | Gather():
                found += self._awaited(seat, seat.inner, seat.waits, Interrupted)
            case Outside(request=request, needs=needs):
                assert seat.outer is not None
                found += self._awaited(seat, seat.outer, request, OutsideChanged)
                if isinstance(request, Gather) and self._lacks(needs):
                    found.append(partial(self._interrupt, seat, alone=True))
            case Watch(needs=needs):
                found.append(partial(self._interrupt, seat) if self._lacks(needs) else go)
            case Meet(needs=needs):
                waits = seat.outer is not None and seat.outer.alone
                if not waits:
                    found.append(partial(self._meet, seat))
                if self._lacks(needs) and (waits or seat.outer is None):
                    found.append(partial(self._interrupt, seat))
            case _:
                raise AssertionError(f"{seat.waits} is answered at once")
        return found

    def _lacks(self, needs: Sequence[str]) -> bool:
        return not set(needs) <= set(self.members)

    def _awaited(self, seat: Seat, port: Port, request: Request, changed: Changed) -> list[Step]:
        if port.name in port.view.results:
            return [partial(self._take_result, seat, port, changed)]
        if port.stale and port.name not in port.view.told:
            return [partial(self._change, seat, port, changed)]
        if isinstance(request, Receive):
            return [partial(self._deliver, seat, port, each) for each in port.arrived(self.late)]
        if port.view.complete() and port.name not in port.view.gathered:
            return [partial(port.view.hear, port.name)]
        return []

    def _gathering_alone(self, port: Port) -> list[Step]:
        if port.name in port.view.results or port.name not in port.view.told:
            return [partial(self._alone_no_more, port)]
        if port.view.complete() and port.name not in port.view.gathered:
            return [partial(port.view.hear, port.name)]
        return []

    def _alone_no_more(self, port: Port) -> None:
        port.view.results.pop(port.name, None)
        port.alone = False

    def _go(self, seat: Seat) -> None:
        answer, seat.answer, seat.waits = seat.answer, None, None
        begun, seat.begun = seat.begun, True
        self._resume(seat, (lambda p: p.send(answer)) if begun else next)

    def _change(self, seat: Seat, port: Port, changed: Changed) -> None:
        port.look()
        seat.waits = None
        members = port.view.members
        self._resume(seat, lambda program: program.throw(changed(members)))

    def _interrupt(self, seat: Seat, *, alone: bool = False) -> None:
        """The island lacks somebody; what was gathered outside goes on by itself."""
        if alone:
            assert seat.outer is not None
            seat.outer.alone = True
        self._change(seat, seat.inner, Interrupted)

    def _take_result(self, seat: Seat, port: Port, changed: Changed) -> None:
        result = port.view.results.pop(port.name)
        if result is None:
            self._change(seat, port, changed)
        else:
            seat.answer = result
            self._go(seat)

    def _deliver(self, seat: Seat, port: Port, chosen: Expect) -> None:
        port.expected.pop((chosen.source, chosen.key))
        chosen.target.copy_(port.view.sent[chosen.source, chosen.key, port.name].popleft())
        seat.answer = chosen.key
        self._go(seat)

    def _meet(self, seat: Seat) -> None:
        assert self.outer is not None
        name = f"{seat.member.name}'"
        if seat.outer is None:
            self.outer.install((*self.outer.members, name))
            seat.outer = Port(name, self.outer, self.outer.number)
        seat.outer.look()
        seat.answer = name
        self._go(seat)

    def _resume(
        self, seat: Seat, go: Callable[[Generator[Request, object, None]], Request]
    ) -> None:
        try:
            request = go(seat.program)
        except StopIteration:
            self.ended.append(seat.member)
            self.kill(seat.member.name)
            if seat.outer is not None:
                view = seat.outer.view
                view.install(tuple(name for name in view.members if name != seat.outer.name))
            return
        if isinstance(request, Outside):
            assert seat.outer is not None
            self._begin(seat, seat.outer, request.request, request)
        else:
            self._begin(seat, seat.inner, request, request)

    def _begin(self, seat: Seat, port: Port, request: Request, whole: Request) -> None:
        """A worker that does not know of the view yet hears of it when it waits next."""
        current = not port.stale
        match request:
            case Send(target=target, key=key, tensor=tensor):
                if current:
                    on_its_way = tensor.clone()
                    self.spoil(key, on_its_way)
                    queue = port.view.sent.setdefault((port.name, key, target), deque())
                    queue.append(on_its_way)
            case Expect(source=source, key=key):
                if current:
                    port.expected[source, key] = request
            case _:
                seat.waits = whole
                if isinstance(request, Gather) and current:
                    port.view.told[port.name] = request


class World:
    """Several islands, and the view that all their workers are in."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.outer = View()
        self.islands: dict[str, Simulation] = {}
        self._leaving: list[Step] = []
        """Views that do not know of a loss yet."""

    def add(self, island: str, members: Sequence[Member], *, steps: int) -> Simulation:
        found = Simulation(members, seed=0, steps=steps, outer=self.outer, rng=self.rng)
        self.islands[island] = found
        return found

    def run(self, between: Callable[[int], None] = lambda turn: None) -> None:
        """Until all members have made all steps. Nothing may hang."""
        for turn in range(1, MOST_TURNS):
            islands = self.islands.values()
            if not any(island.seats for island in islands):
                return
            between(turn)
            able = [step for island in islands for step in island.able()]
            watching = [step for step in able if self._watches(step)]
            busy = [step for step in able if not self._watches(step)]
            if self._leaving and (not busy or self.rng.random() < 0.02):
                self._leaving.pop(self.rng.randrange(len(self._leaving)))()
            elif busy and self.rng.random() < 0.98:
                self.rng.choice(busy)()
            else:
                waits = [(n, s.waits) for i in islands for n, s in i.seats.items()]
                assert able, f"everybody waits: {waits}"
                self.rng.choice(watching or busy)()
        raise AssertionError("it goes on and on")

    def _watches(self, step: Step) -> bool:
        """Others have the word while somebody just looks whether anything is new."""
        assert isinstance(step, partial)
        seat = step.args[0] if step.args else None
        return isinstance(seat, Seat) and isinstance(seat.waits, Watch)

    def kill(self, island: str, name: str) -> None:
        """It does nothing any more; each view hears of it in its time."""
        simulation = self.islands[island]
        outer = simulation.seats.pop(name).outer
        self._leaving.append(partial(self._gone, simulation.view, name))
        if outer is not None:
            self._leaving.append(partial(self._gone, self.outer, outer.name))

    def _gone(self, view: View, name: str) -> None:
        view.install(tuple(member for member in view.members if member != name))

"""A small job whose every next step can be tried: `moves(state)`, then `after(state, move)`.

What is modelled is order: a message, a frame or the news of a broken connection may arrive at any
time, in its place in its queue. A crash loses any number of the last things that were under way
from the crashed one. Time passes when nothing else can happen and, `hurries` times, when something
could: until the coordinator's patience with something is over.

A state is a tuple of numbers: of the coordinator, of each process, of each queue, of what may still
go wrong. Each number stands for a value that was met before. What a part does in a state of its own
is computed once, by the real machine, and looked up from then on: a part has few states, the whole
has many.
"""

from __future__ import annotations

from typing import Any

from atoll.membership.messages import PeerId
from atoll.sim.checks import Violation
from atoll.sim.parts import Chair, Committed, Node, Over, Reached, Said, Sent, Told, canonical
from atoll.sim.states import (
    ALIVE,
    CHAIR,
    CLOSED,
    DEAD,
    LOST,
    MARKS,
    UP,
    Case,
    ChairFacts,
    Facts,
    Move,
    Parts,
    State,
)


class SmallWorld:
    """Thread: whoever calls it owns it."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.chairs, self.nodes = Parts(), Parts()
        self.ids: list[PeerId] = []
        self._items: list[Any] = ["lost", "closed", "up"]
        self._item_numbers: dict[object, int] = {}
        self._queues: list[tuple[int, ...]] = [()]
        self._queue_numbers: dict[tuple[int, ...], int] = {(): 0}
        count = case.peers
        self._count = count
        # Where in a state what is.
        self._chair, self._chair_lives = 0, 1
        self._node, self._life, self._stream = 2, 2 + count, 2 + 2 * count
        self._up, self._down = 2 + 3 * count, 2 + 4 * count
        self._link = 2 + 5 * count
        self._budget = 2 + 5 * count + count * count

    # --- values -----------------------------------------------------------------------------------

    def _item(self, value: Any) -> int:
        key = canonical(value)
        number = self._item_numbers.get(key)
        if number is None:
            number = self._item_numbers[key] = len(self._items)
            self._items.append(value)
        return number

    def _queue(self, items: tuple[int, ...]) -> int:
        number = self._queue_numbers.get(items)
        if number is None:
            number = self._queue_numbers[items] = len(self._queues)
            self._queues.append(items)
        return number

    def _link_place(self, sender: int, receiver: int) -> int:
        return self._link + sender * self._count + receiver

    # --- the beginning ----------------------------------------------------------------------------

    def begin(self) -> State:
        """All but the joiners are in a view and hold the state; all are linked."""
        case, count = self.case, self._count
        founders = count - case.joiners
        nodes = [Node(number, prompt=case.prompt) for number in range(count)]
        self.ids = [node.id for node in nodes]
        self._number_of = {peer: number for number, peer in enumerate(self.ids)}
        chair = Chair(min_islands=founders, restarts=case.restarts > 0)
        state = [0] * (self._budget + 5)
        state[self._chair], state[self._chair_lives] = self.chairs.put(chair), 1
        for number, node in enumerate(nodes):
            state[self._node + number] = self.nodes.put(node)
            state[self._life + number] = ALIVE
        now = tuple(state)
        for number in range(count):
            now = self._settle(self.after(now, Move("stream up", number)))
        for number in range(founders):
            now = self._settle(self.after(now, Move("ready", number)))
        while not self._all_in(now, founders):
            before, now = now, self._settle(self.after(now, Move("wait", CHAIR)))
            if before == now:
                raise Violation("progress: no first view")
        budgets = (case.crashes, case.leaves, case.cuts, case.restarts, case.hurries)
        return now[: self._budget] + budgets

    def _all_in(self, state: State, founders: int) -> bool:
        facts = [self.nodes.facts[state[self._node + n]] for n in range(founders)]
        return all(f.epoch == 1 and f.submits for f in facts)

    def _settle(self, state: State) -> State:
        while moves := [m for m in self.moves(state) if m.what in _DELIVERIES]:
            state = self.after(state, moves[0])
        return state

    # --- what may happen --------------------------------------------------------------------------

    def moves(self, state: State) -> list[Move]:
        """All that may happen next, and not by a fault or by time, first; then these."""
        found: list[Move] = []
        for who in range(self._count):
            if state[self._life + who] == ALIVE:
                self._moves_of(state, who, found)
            queue = self._queues[state[self._up + who]]
            if queue and state[self._chair_lives]:
                if queue[0] >= MARKS:
                    found.append(Move("received", CHAIR, who))
                if LOST in queue or queue[0] == CLOSED:
                    found.append(Move("stream lost", CHAIR, who))
        calm = not found
        self._faults(state, found)
        if state[self._chair_lives] and (calm or state[self._budget + 4]):
            found.append(Move("wait" if calm else "hurry", CHAIR))
        return found

    def _moves_of(self, state: State, who: int, found: list[Move]) -> None:
        facts: Facts = self.nodes.facts[state[self._node + who]]
        if facts.inbox:
            found.append(Move("inbox", who))
        if facts.submits:
            found.append(Move("submit", who))
        if facts.reconnects and state[self._chair_lives]:
            found.append(Move("stream up", who))
        if facts.may_be_ready and who >= self._count - self.case.joiners:
            found.append(Move("ready", who))
        if facts.redials and self._lacks_a_link(state, who, facts):
            found.append(Move("redial", who))
        queue = self._queues[state[self._down + who]]
        if queue:
            if queue[0] >= MARKS:
                found.append(Move("heard", who))
            if LOST in queue or queue[0] == CLOSED:
                found.append(Move("stream lost", who))
        for other in range(self._count):
            queue = self._queues[state[self._link_place(other, who)]]
            if not queue:
                continue
            if queue[0] >= MARKS:
                found.append(Move("frame", who, other))
            elif queue[0] == UP and self._wanted(state, who, other, facts):
                found.append(Move("link up", who, other))
            if LOST in queue or queue[0] == CLOSED:
                found.append(Move("link lost", who, other))

    def _lacks_a_link(self, state: State, who: int, facts: Facts) -> bool:
        return any(
            state[self._life + other] == ALIVE
            and self.ids[other] in facts.wanted
            and self.ids[other] not in facts.links
            and UP not in self._queues[state[self._link_place(other, who)]]
            for other in range(self._count)
            if other != who
        )

    def _wanted(self, state: State, who: int, other: int, facts: Facts) -> bool:
        theirs: Facts = self.nodes.facts[state[self._node + other]]
        wants = self.ids[who] in theirs.wanted or self.ids[who] in theirs.links
        return self.ids[other] in facts.wanted and wants

    def _faults(self, state: State, found: list[Move]) -> None:
        crashes, leaves, cuts, restarts, _ = state[self._budget :]
        for who in range(self._count):
            if state[self._life + who] != ALIVE:
                continue
            facts: Facts = self.nodes.facts[state[self._node + who]]
            if crashes:
                found.append(Move("crash", who))
            if leaves and facts.epoch and not facts.leaving:
                found.append(Move("leave", who))
            for other in range(who):
                if cuts and self._cuttable(state, who, other):
                    found.append(Move("cut", who, other))
        if restarts and state[self._chair_lives]:
            found.append(Move("coordinator crashes", CHAIR))
        if not state[self._chair_lives]:
            found.append(Move("coordinator restarts", CHAIR))

    def _cuttable(self, state: State, one: int, other: int) -> bool:
        for who, whom in ((one, other), (other, one)):
            queue = self._queues[state[self._link_place(who, whom)]]
            facts: Facts = self.nodes.facts[state[self._node + whom]]
            if self.ids[who] not in facts.links or LOST in queue or CLOSED in queue:
                return False
        return state[self._life + other] == ALIVE

    # --- what comes of it -------------------------------------------------------------------------

    def after(self, state: State, move: Move) -> State:
        """Raises Violation when a part finds that an invariant does not hold."""
        now = list(state)
        what, who, other = move
        match what:
            case "heard" | "stream lost" | "received" if who != CHAIR or what == "received":
                self._take_from_stream(now, move)
            case "stream lost":
                now[self._up + other] = self._queue(())
                self._chair_step(now, "lost", now[self._stream + other], now[self._stream + other])
            case "frame" | "link up" | "link lost":
                self._take_from_link(now, move)
            case "inbox" | "submit" | "ready" | "redial":
                self._node_step(now, who, what)
            case "stream up":
                now[self._stream + who] += self._count if now[self._stream + who] else who + 1
                self._node_step(now, who, what)
            case "leave":
                now[self._budget + 1] -= 1
                self._node_step(now, who, what)
            case "crash":
                now[self._budget] -= 1
                self._end(now, who, LOST)
            case "cut":
                now[self._budget + 2] -= 1
                for one, two in ((who, other), (other, who)):
                    self._push(now, self._link_place(one, two), LOST)
            case "coordinator crashes":
                now[self._budget + 3] -= 1
                now[self._chair_lives] = 0
                for peer in range(self._count):
                    now[self._up + peer] = 0
                    if now[self._life + peer] == ALIVE and not self._closing(now, peer):
                        self._push(now, self._down + peer, LOST)
            case "coordinator restarts":
                now[self._chair_lives] = 1
                self._chair_step(now, "restart")
            case "wait" | "hurry":
                now[self._budget + 4] -= what == "hurry"
                self._chair_step(now, "wait")
            case _:
                raise ValueError(what)
        for peer in range(self._count):
            self._purge(now, peer)
        return tuple(now)

    def _purge(self, now: list[int], who: int) -> None:
        """Frames that change nothing, whenever they come, need not come."""
        facts: Facts = self.nodes.facts[now[self._node + who]]
        for other in range(self._count):
            place = self._link_place(other, who)
            queue = self._queues[now[place]]
            while queue and queue[0] >= MARKS and self._items[queue[0]].epoch <= facts.deaf:
                queue = queue[1:]
            now[place] = self._queue(queue)

    def _closing(self, now: list[int], peer: int) -> bool:
        queue = self._queues[now[self._down + peer]]
        facts: Facts = self.nodes.facts[now[self._node + peer]]
        return facts.reconnects or CLOSED in queue or LOST in queue

    def _take_from_stream(self, now: list[int], move: Move) -> None:
        what, who, other = move
        if what == "received":
            queue = self._queues[now[self._up + other]]
            now[self._up + other] = self._queue(queue[1:])
            stream = now[self._stream + other]
            item = queue[0] * 1000 + stream
            self._chair_step(now, what, item, (stream, self._items[queue[0]]))
        elif what == "heard":
            queue = self._queues[now[self._down + who]]
            now[self._down + who] = self._queue(queue[1:])
            self._node_step(now, who, what, queue[0], self._items[queue[0]])
        else:
            now[self._down + who] = 0
            self._node_step(now, who, what)

    def _take_from_link(self, now: list[int], move: Move) -> None:
        what, who, other = move
        place = self._link_place(other, who)
        queue = self._queues[now[place]]
        if what == "frame":
            now[place] = self._queue(queue[1:])
            payload = (self.ids[other], self._items[queue[0]])
            self._node_step(now, who, what, queue[0] * 10 + other, payload)
        else:
            end = 0 if what == "link up" or queue[0] == CLOSED else queue.index(LOST)
            now[place] = self._queue(queue[end + 1 :])
            self._node_step(now, who, what, other, self.ids[other])

    def _push(self, now: list[int], place: int, item: int) -> None:
        now[place] = self._queue((*self._queues[now[place]], item))

    def _chair_step(self, now: list[int], event: str, item: int = 0, payload: Any = None) -> None:
        number, out = self.chairs.step(now[self._chair], event, item, payload)
        now[self._chair] = number
        for told in out:
            assert isinstance(told, Told)
            who = (told.stream - 1) % self._count
            if now[self._life + who] != ALIVE or now[self._stream + who] != told.stream:
                continue
            if told.message is not None:
                self._push(now, self._down + who, self._item(told.message))
            elif not self._closing(now, who):
                self._push(now, self._down + who, CLOSED)
                now[self._up + who] = self._queue((LOST,))  # what was said is not heard any more

    def _node_step(
        self, now: list[int], who: int, event: str, item: int = 0, payload: Any = None
    ) -> None:
        number, out = self.nodes.step(now[self._node + who], event, item, payload)
        now[self._node + who] = number
        for output in out:
            match output:
                case Said(message=message):
                    if now[self._chair_lives] and not self._closing(now, who):
                        self._push(now, self._up + who, self._item(message))
                case Sent(peer=peer, frame=frame):
                    other = self._number_of[peer]
                    place = self._link_place(who, other)
                    if now[self._life + other] == ALIVE and not self._ended(now, place):
                        self._push(now, place, self._item(frame))
                case Reached(peer=peer, wanted=True):
                    other = self._number_of[peer]
                    if now[self._life + other] == ALIVE:
                        self._push(now, self._link_place(who, other), UP)
                        self._push(now, self._link_place(other, who), UP)
                case Reached(peer=peer):
                    self._hang_up(now, who, self._number_of[peer], CLOSED)
                case Over():
                    self._end(now, who, CLOSED)

    def _ended(self, now: list[int], place: int) -> bool:
        queue = self._queues[now[place]]
        return (LOST in queue or CLOSED in queue) and UP not in queue

    def _end(self, now: list[int], who: int, how: int) -> None:
        """A process ends; its connections do, too."""
        if now[self._life + who] == DEAD:
            return
        now[self._life + who] = DEAD
        if now[self._chair_lives] and not self._closing(now, who):
            self._push(now, self._up + who, how)
        now[self._down + who] = 0
        for other in range(self._count):
            if other != who:
                self._hang_up(now, who, other, how)

    def _hang_up(self, now: list[int], who: int, other: int, how: int) -> None:
        now[self._link_place(other, who)] = 0
        place = self._link_place(who, other)
        queue = self._queues[now[place]]
        theirs: Facts = self.nodes.facts[now[self._node + other]]
        if now[self._life + other] != ALIVE:
            now[place] = 0
        elif self.ids[who] not in theirs.links and UP in queue:
            now[place] = self._queue(queue[: queue.index(UP)])  # it never knew of it
        elif self.ids[who] in theirs.links and not self._ended(now, place):
            self._push(now, place, how)

    # --- invariants -------------------------------------------------------------------------------

    def check(self, state: State) -> None:
        """Raises Violation when an invariant does not hold."""
        chair: ChairFacts = self.chairs.facts[state[self._chair]]
        facts: list[Facts] = [
            self.nodes.facts[state[self._node + who]] for who in range(self._count)
        ]
        results: dict[tuple[int, int], Committed] = {}
        for who, one in enumerate(facts):
            for epoch, ids in one.installed:
                if chair.views.get(epoch) != ids:
                    raise Violation(f"one line: {self._name(who)} is in a view {epoch} of its own")
            for commit in one.committed:
                key = (chair.lineage[commit.result.epoch], commit.sequence)
                known = results.setdefault(key, commit)
                if known.result != commit.result:
                    raise Violation(f"agreement: op {commit.sequence} has two results")
                if commit.heard:
                    self._all_are_done(state, who, commit, facts)

    def _all_are_done(self, state: State, who: int, commit: Committed, facts: list[Facts]) -> None:
        for contribution in commit.result.contributions:
            other = self._number_of[contribution.peer]
            if state[self._life + other] == ALIVE and facts[other].done <= commit.sequence:
                raise Violation(
                    f"commit: op {commit.sequence} at {self._name(who)}, which is not done at "
                    f"{self._name(other)}"
                )

    def check_end(self, state: State) -> None:
        """Nothing is under way and no time changes it: nobody may wait for anything."""
        chair: ChairFacts = self.chairs.facts[state[self._chair]]
        alive = [who for who in range(self._count) if state[self._life + who] == ALIVE]
        if not chair.idle and alive:
            raise Violation("progress: a change of view that never ends")
        for who in alive:
            facts: Facts = self.nodes.facts[state[self._node + who]]
            if facts.ids != chair.ids or self.ids[who] not in chair.ids:
                raise Violation(f"progress: {self._name(who)} never comes into the view")
            if len(chair.ids) != len(alive):
                raise Violation("progress: the view holds somebody who is gone")
            if facts.settled < 1:
                raise Violation(f"progress: {self._name(who)} waits for its op for ever")

    def _name(self, who: int) -> str:
        return self.ids[who].rstrip(b".").decode()

    def describe(self, state: State, move: Move) -> str:
        """One line of a trace."""
        what, who, other = move
        name = "coordinator" if who == CHAIR else self._name(who)
        item: object = ""
        match what:
            case "received":
                item = self._items[self._queues[state[self._up + other]][0]]
            case "heard":
                item = self._items[self._queues[state[self._down + who]][0]]
            case "frame":
                item = self._items[self._queues[state[self._link_place(other, who)]][0]]
        of = f" of {self._name(other)}" if other != CHAIR else ""
        return f"{name}: {what}{of} {item}"


_DELIVERIES = {"inbox", "heard", "received", "frame", "link up", "link lost", "stream lost"}

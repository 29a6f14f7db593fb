"""The coordinator's side of virtual synchrony: when a view changes, and how. docs/design.md 3.1.

`advance` is called after every event and looks at the whole state, so it does not matter in which
order news arrives:

    lost or cut off   ->  an abort begins at once, superseding what is under way
    fence answered    ->  Install
    all installed     ->  the change is over
    nothing under way ->  members that want to leave and joiners that are ready: a drain; then
                          measured links that members do not know: a drain, too
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from atoll.membership.answers import on_fenced
from atoll.membership.islands import (
    abandoned,
    advance_islands,
    candidates,
    going,
    peers_of,
)
from atoll.membership.losses import lose_the_cut_off, lose_the_silent
from atoll.membership.measuring import advance_measuring
from atoll.membership.messages import (
    ChangeKind,
    Departure,
    Fence,
    Install,
    PeerId,
    Suspect,
    View,
)
from atoll.membership.records import Change, Island, Peer, Phase
from atoll.membership.relays import advance_relays
from atoll.membership.starts import (
    Issued,
    Ring,
    abort_starts,
    all_done,
    behind,
    drain_starts,
    unequal,
)
from atoll.membership.state import State
from atoll.membership.topology import encode
from atoll.membership.wanted import changes, clique, wanted

NAMED = 32
"""Islands that the event of a new view lists."""

FEW, LOOK_S = 32, 0.05
"""With more peers than that, whether a first view can be formed is found out once in so many
seconds and not after each of the n^2 messages that say who is linked by now."""


def advance(state: State) -> None:
    """Carries the change of view as far as it goes now."""
    if state.stopping:
        return
    state.update_severed()
    lose_the_silent(state)
    advance_relays(state)
    lose_the_cut_off(state)
    advance_islands(state)
    if state.newest.view.members and not _somebody_stays(state):
        # They have all left, and the line of views goes on without any. (Of those that are left in
        # part, nobody knows how far the rings have come that they are gone from.)
        _break(state)
    if state.broken and not _disputed(state):
        _begin(state, ChangeKind.ABORT)
    change = state.change
    if change is not None and change.phase is Phase.FENCE and not change.waiting:
        _install(state, change)
    change = state.change
    if change is not None and change.phase is Phase.INSTALL:
        if change.withheld and change.waiting <= change.withheld:
            _release(state, change)  # those who were to go first have left
        if not change.waiting:
            state.change = None
            state.issued = [state.newest]
            state.dirty = True
    if state.change is None:
        if not state.newest.view.members:
            _form(state)
        elif state.broken:
            pass  # the abort waits for a dispute; a drain would count on what can never be done
        elif changes(state) or advance_measuring(state):
            _begin(state, ChangeKind.DRAIN)


def _somebody_stays(state: State) -> bool:
    return any(
        info.id in state.peers and state.islands[info.island].whole
        for info in state.newest.view.members
    )


# --- what peers say -------------------------------------------------------------------------------


def on_linked(state: State, peer: Peer, linked: int) -> None:
    """`linked`: bits (`places`)."""
    state.set_linked(peer, linked)
    if state.lacks(peer):
        _break(state)


def on_suspect(state: State, peer: Peer, message: Suspect) -> None:
    """A link was lost. Even if it comes back, what was under way on it is gone."""
    if peer.linked is not None:
        state.set_linked(peer, peer.linked & ~state.places.bits((message.peer,)))
    peer.accused[message.peer] = (message.reason, message.message)
    accused = state.peers.get(message.peer)
    if message.certain and accused is not None:
        said = f"its process has died, says {peer.info.island} on the same machine"
        state.lose(accused, Departure.CRASHED, said)
    newest = state.newest
    together = state.is_member(peer.id) and state.is_member(message.peer)
    # In a drain a member still has to finish what it does with those whom it leaves behind.
    needed = newest.kind is ChangeKind.DRAIN and message.peer in state.members_of(
        peer.installed_epoch
    )
    if together or needed:
        _break(state)


def _break(state: State) -> None:
    change = state.change
    if change is not None and change.kind is ChangeKind.ABORT and change.phase is Phase.FENCE:
        return  # nothing of the present view goes on anyway
    state.broken = state.dirty = True


def on_installed(state: State, peer: Peer, epoch: int) -> None:
    if epoch > state.newest.view.epoch:
        state.lose(peer, Departure.PROTOCOL, f"it says it has installed view {epoch}")
        return
    peer.installed_epoch = max(peer.installed_epoch, epoch)
    change = state.change
    if (
        change is not None
        and change.phase is Phase.INSTALL
        and epoch == state.newest.view.epoch
        and peer.id in change.waiting
    ):
        change.waiting.discard(peer.id)
        if peer.id in change.answers:
            change.switched.add(peer.info.shard)
            _release(state, change)
    installed = next((e.view for e in state.issued if e.view.epoch == epoch), None)
    if installed is None or state.is_member(peer.id) or peer.id in installed.ids:
        return
    if peer.leaving in (None, Departure.SHARD_LOST):
        said = abandoned(state.islands[peer.info.island])
        state.depart(peer, Departure.SHARD_LOST, said, expel=True)
    else:
        state.depart(peer, peer.leaving, peer.left("it left in good order"))


def on_leave(state: State, peer: Peer) -> None:
    """Its program is over. A drain that counts on ops which it has not started would never end."""
    change = state.change
    if (
        change is not None
        and change.phase is Phase.INSTALL
        and change.kind is ChangeKind.DRAIN
        and peer.id in change.waiting
        and peer.id in change.answers
        and _behind(state, change, peer, state.newest, state.issued[-2])
    ):
        _break(state)


# --- the change ----------------------------------------------------------------------------------


def _disputed(state: State) -> bool:
    """Whether some members still have time to say what they see. A loss that is certain does not
    wait for it: those that are in dispute are dealt with when the fence is answered."""
    if not state.severed:
        return False
    return not (state.gone and any(peer not in state.peers for peer in state.newest.view.ids))


def _behind(state: State, change: Change, peer: Peer, to: Issued, now: Issued) -> bool:
    """Whether a peer that starts nothing more has not started all that comes before `to`."""
    shard = peer.info.shard
    return behind(change.answers[peer.id], to.ring(shard).starts, now.ring(shard).starts)


def _begin(state: State, kind: ChangeKind, without: frozenset[str] = frozenset()) -> None:
    state.attempt += 1
    state.broken = False
    state.dirty = True
    asked = state.members() + state.outgoing()
    waiting = {peer.id for peer in asked}
    state.change = Change(
        kind=kind, phase=Phase.FENCE, since_s=state.now_s, waiting=waiting, without=without
    )
    fence = Fence(attempt=state.attempt, kind=kind)
    for peer in asked:
        frozen = peer.frozen if kind is ChangeKind.ABORT else None
        if frozen is not None and frozen.epoch == state.newest.view.epoch:
            on_fenced(state, peer, frozen)
        else:
            state.send(peer, fence)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Next:
    """The view that the answers to a fence lead to. `held_back`: newcomers that are not told."""

    islands: list[Island]
    base: int
    starts: tuple[dict[int, int], ...]
    held_back: frozenset[PeerId] = frozenset()


def _install(state: State, change: Change) -> None:
    """All have answered: the next view, unless some of its members miss a link."""
    if state.severed:
        return  # it comes back, or the clique decides
    if change.kind is ChangeKind.ABORT:
        found = _after_abort(state, change)
    elif (drained := _after_drain(state, change)) is not None:
        found = drained
    else:
        _begin(state, ChangeKind.ABORT, without=frozenset(_going(state)))
        return
    before = set(state.newest.view.ids)
    members = peers_of(found.islands)
    ids = {peer.id for peer in members}.union(found.held_back)
    recipients = members + [peer for peer in state.alive(change.answers) if peer.id not in ids]
    joiners = {peer.id for peer in members if peer.id not in before}
    # While a member may still be short of an op before `start`, an installed joiner would look as
    # if that op were settled.
    settled = change.kind is ChangeKind.ABORT or all_done(change.answers.values(), found.starts[0])
    change.withheld = joiners if not settled and len(joiners) < len(recipients) else set()
    state.held_back |= found.held_back
    _issue(state, change, found.islands, recipients, found.base, found.starts)


def _after_abort(state: State, change: Change) -> _Next:
    answers = change.answers
    base, starts = abort_starts(answers, state.issued, state.shards)
    islands = [i for i in state.member_islands() if i.whole and i.name not in change.without]
    # Who was lost and came back as it is, without any view, was not asked.
    begun = {peer for peer, answer in answers.items() if answer.epoch}
    new = [i for i in islands if not any(p.id in begun for p in i.peers.values())]
    blind = len(new) == len(islands) and any(
        not state.islands[peer.info.island].whole for peer in state.alive(answers)
    )
    if not base or not (unequal(starts) or blind):
        return _Next(islands=islands, base=base, starts=starts)
    # A newcomer begins at the same op in every ring, so it has to wait for a drain, or, if nobody
    # knows where a ring is, for a view from nothing.
    return _Next(
        islands=[island for island in islands if island not in new],
        base=base,
        starts=starts,
        held_back=frozenset(peer.id for peer in peers_of(new)),
    )


def _after_drain(state: State, change: Change) -> _Next | None:
    """None: some members can do no more what others wait for, and only an abort helps."""
    answers = change.answers
    cut = drain_starts(answers.values(), state.newest)

    def behind_cut(peer: Peer) -> bool:
        before = state.newest.ring(peer.info.shard).starts
        return peer.id in answers and behind(answers[peer.id], cut, before)

    stopped = {p.info.island for p in state.members() if p.leaving and behind_cut(p)}
    if stopped:
        # Its program is over: it will not start the op that others wait in.
        _leave_behind(state, stopped)
        return None
    islands = wanted(state)
    staying = [peer for peer in peers_of(islands) if state.is_member(peer.id)]
    heirs = state.holders.intersection(peer.id for peer in staying)
    if not heirs and any(behind_cut(peer) for peer in staying):
        # They do not hold the state yet, and cannot start before they do; with the last holder gone
        # they never would, as far as this view is concerned.
        return None
    base = state.newest.view.epoch
    return _Next(islands=islands, base=base, starts=(cut,) * state.shards)


def _going(state: State) -> list[str]:
    return [island.name for island in state.member_islands() if going(island)]


def _leave_behind(state: State, names: set[str]) -> None:
    """An island goes as a whole, also those of its shards that have not said so."""
    for name in names:
        for peer in state.islands[name].peers.values():
            peer.leaving = peer.leaving or Departure.SHARD_LOST
            state.parting.add(name)


def _issue(
    state: State,
    change: Change,
    islands: list[Island],
    recipients: list[Peer],
    base: int,
    starts: tuple[dict[int, int], ...],
) -> None:
    epoch = state.newest.view.epoch + 1
    before = set(state.newest.view.ids)
    members = peers_of(islands)
    view = View(epoch=epoch, members=tuple(peer.info for peer in members))
    rings = tuple(
        Ring(starts=of_ring, topology=encode(view.ring(shard).ids, state.figures))
        for shard, of_ring in enumerate(starts)
    )
    state.issued.append(Issued(view=view, kind=change.kind, rings=rings, base=base))
    state.begin_view()
    state.holders &= set(view.ids)
    state.held_back -= set(view.ids)
    named = ", ".join(island.name for island in islands[:NAMED]) or "nobody"
    if len(islands) > NAMED:
        named += f" and {len(islands) - NAMED} more"
    state.tell("view", f"view {epoch} ({change.kind.value}): {named}")
    state.view_changes[_cause(change, members, before)] += 1
    for island in islands:
        first = island.peers[0]
        if first.id not in before:
            state.remember_island(island.name)
            state.tell("joined", f"{island.name} joined", peer=first.info)
    if members and not state.holders:
        state.holders = frozenset(peer.id for peer in islands[0].peers.values())
        state.state_epoch = epoch
        if epoch > 1:
            text = (
                f"nobody holds the state any more; {islands[0].name} starts from what it has: "
                "a checkpoint, or its own"
            )
            state.tell("state_lost", text, peer=members[0].info)
    change.phase = Phase.INSTALL
    change.since_s = state.now_s
    change.waiting = {peer.id for peer in recipients}
    _send_install(state, (peer for peer in recipients if peer.id not in change.withheld))
    state.update_severed()
    state.dirty = state.peers_changed = True


CAUSES = ("formed", "loss", "links", "join", "leave", "join_and_leave")
"""Why views are issued, for metrics."""


def _cause(change: Change, members: list[Peer], before: set[PeerId]) -> str:
    if not before:
        return "formed"
    if change.kind is ChangeKind.ABORT:
        return "loss"
    joined = any(peer.id not in before for peer in members)
    left = bool(before - {peer.id for peer in members})
    if not joined and not left:
        return "links"
    return "join_and_leave" if joined and left else "join" if joined else "leave"


def _send_install(state: State, peers: Iterable[Peer]) -> None:
    messages = [install_message(state, shard) for shard in range(state.shards)]
    for peer in peers:
        state.send(peer, messages[peer.info.shard])


def install_message(state: State, shard: int) -> Install:
    newest = state.newest
    ring = newest.ring(shard)
    return Install(
        view=newest.view,
        kind=newest.kind,
        starts=ring.starts,
        holders=state.holders.intersection(newest.view.ring(shard).ids),
        topology=ring.topology,
    )


def _release(state: State, change: Change) -> None:
    """In every ring a member has finished what comes before `start`, so all are done with it:
    joiners follow."""
    if not change.withheld:
        return
    if len(change.switched) < state.shards and not change.waiting <= change.withheld:
        return
    _send_install(state, state.alive(sorted(change.withheld)))
    change.since_s = state.now_s
    change.withheld = set()


def _form(state: State) -> None:
    """A view from nothing, once enough are ready and linked and no more are just about to be."""
    options, now_s = state.options, state.now_s
    if len(state.peers) > FEW:
        if now_s < state.form_look_s:
            return
        state.form_look_s = now_s + LOOK_S
    islands = clique(candidates(state), max(1, options.min_islands))
    if not islands:
        state.form_since_s = None
        return
    if state.form_since_s is None:
        state.form_since_s = now_s
    founders = peers_of(islands)
    ids = frozenset(peer.id for peer in founders)
    if state.form_seen != ids:
        state.form_seen = ids
        state.form_changed_s = now_s
    late = _coming(state, ids) and now_s - state.form_since_s < options.form_patience_s
    if late or now_s - state.form_changed_s < options.form_settle_s:
        return
    state.form_since_s = None
    change = Change(kind=ChangeKind.ABORT, phase=Phase.INSTALL, since_s=now_s, waiting=set())
    state.change = change
    _issue(state, change, islands, founders, 0, ({},) * state.shards)


def _coming(state: State, ready: frozenset[PeerId]) -> bool:
    return any(
        peer.id not in ready and peer.stream is not None and not peer.leaving
        for peer in state.peers.values()
    )

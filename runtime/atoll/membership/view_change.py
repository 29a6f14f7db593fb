"""The coordinator's side of virtual synchrony: when a view changes, and how. docs/design.md 3.1.

`advance` is called after every event and looks at the whole state, so it does not matter in which
order news arrives:

    lost or cut off   ->  an abort begins at once, superseding what is under way
    fence answered    ->  Install
    all installed     ->  the change is over
    nothing under way ->  members that want to leave and joiners that are ready: a drain
"""

from __future__ import annotations

from collections.abc import Iterable

from atoll.membership.losses import linked, lose_the_cut_off, lose_the_silent
from atoll.membership.messages import (
    ChangeKind,
    Departure,
    Fence,
    Fenced,
    Install,
    PeerId,
    Suspect,
    View,
)
from atoll.membership.starts import Issued, abort_starts, all_done, behind, drain_starts
from atoll.membership.state import Change, Peer, Phase, State
from atoll.membership.suspicion import largest_clique


def advance(state: State) -> None:
    """Carries the change of view as far as it goes now."""
    if state.stopping:
        return
    state.update_severed()
    lose_the_silent(state)
    lose_the_cut_off(state)
    if state.newest.view.members and not state.members():
        _break(state)  # they have all left, and the line of views goes on without any
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
        elif tuple(_wanted(state)) != state.newest.view.ids:
            _begin(state, ChangeKind.DRAIN)


# --- what peers say -------------------------------------------------------------------------------


def on_linked(state: State, peer: Peer, linked: frozenset[PeerId]) -> None:
    peer.linked = linked
    if state.is_member(peer.id) and any(
        member.id not in linked for member in state.members() if member is not peer
    ):
        _break(state)


def on_suspect(state: State, peer: Peer, message: Suspect) -> None:
    """A link was lost. Even if it comes back, what was under way on it is gone."""
    if peer.linked is not None:
        peer.linked -= {message.peer}
    peer.accused[message.peer] = (message.reason, message.message)
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


def on_fenced(state: State, peer: Peer, message: Fenced) -> None:
    change = state.change
    if change is None or change.phase is not Phase.FENCE or message.attempt != state.attempt:
        return  # late
    if message.epoch and not state.members_of(message.epoch):
        state.lose(peer, Departure.PROTOCOL, f"it says it has installed view {message.epoch}")
        return
    if any(not c.started >= c.done >= c.committed for c in message.progress.values()):
        state.lose(peer, Departure.PROTOCOL, "it says that more is done than started")
        return
    if peer.id in change.waiting:
        change.waiting.discard(peer.id)
        change.answers[peer.id] = message


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
            _release(state, change)
    installed = next((e.view for e in state.issued if e.view.epoch == epoch), None)
    absent = installed is not None and peer.id not in installed.ids
    if peer.leaving and absent and not state.is_member(peer.id):
        state.depart(peer, peer.leaving, "it left in good order")


def on_leave(state: State, peer: Peer) -> None:
    """Its program is over. A drain that counts on ops which it has not started would never end."""
    change = state.change
    if (
        change is not None
        and change.phase is Phase.INSTALL
        and change.kind is ChangeKind.DRAIN
        and peer.id in change.waiting
        and peer.id in change.answers
        and behind(change.answers[peer.id], state.newest.starts, state.issued[-2])
    ):
        _break(state)


# --- the change ----------------------------------------------------------------------------------


def _disputed(state: State) -> bool:
    """Whether some members still have time to say what they see. A loss that is certain does not
    wait for it: those that are in dispute are dealt with when the fence is answered."""
    certain = any(peer not in state.peers for peer in state.newest.view.ids)
    return bool(state.severed) and not certain


def _begin(state: State, kind: ChangeKind, without: frozenset[PeerId] = frozenset()) -> None:
    state.attempt += 1
    state.broken = False
    state.dirty = True
    asked = state.members() + state.outgoing()
    waiting = {peer.id for peer in asked}
    state.change = Change(
        kind=kind, phase=Phase.FENCE, since_s=state.now_s, waiting=waiting, without=without
    )
    for peer in asked:
        state.send(peer, Fence(attempt=state.attempt, kind=kind))


def _install(state: State, change: Change) -> None:
    """All have answered: the next view, unless some of its members miss a link."""
    if state.severed:
        return  # it comes back, or the clique decides
    answers = change.answers
    if change.kind is ChangeKind.ABORT:
        base, starts = abort_starts(answers, state.issued)
        members = [peer.id for peer in state.members() if peer.id not in change.without]
    else:
        base, starts = state.newest.view.epoch, drain_starts(answers.values(), state.newest)
        leaving = [peer.id for peer in state.members() if peer.leaving]
        if any(behind(answers[peer], starts, state.newest) for peer in leaving):
            # Its program is over: it will not start the op that others wait in.
            _begin(state, ChangeKind.ABORT, without=frozenset(leaving))
            return
        members = _wanted(state)
    before = set(state.newest.view.ids)
    members_now = state.alive(members)
    recipients = members_now + [peer for peer in state.alive(answers) if peer.id not in members]
    joiners = {peer.id for peer in members_now if peer.id not in before}
    # While a member may still be short of an op before `start`, an installed joiner would look as
    # if that op were settled.
    hold = change.kind is ChangeKind.DRAIN and not all_done(answers.values(), starts)
    change.withheld = joiners if hold and len(joiners) < len(recipients) else set()
    _issue(state, change, members_now, recipients, base, starts)


def _issue(
    state: State,
    change: Change,
    members: list[Peer],
    recipients: list[Peer],
    base: int,
    starts: dict[int, int],
) -> None:
    epoch = state.newest.view.epoch + 1
    before = set(state.newest.view.ids)
    view = View(epoch=epoch, members=tuple(peer.info for peer in members))
    entry = Issued(view=view, kind=change.kind, starts=starts, base=base)
    state.issued.append(entry)
    state.holders &= set(view.ids)
    islands = ", ".join(peer.info.island for peer in members) or "nobody"
    state.tell("view", f"view {epoch} ({change.kind.value}): {islands}")
    state.view_changes[_cause(change, members, before)] += 1
    for peer in members:
        if peer.id not in before:
            state.tell("joined", f"{peer.info.island} joined", peer=peer.info)
    if members and not state.holders:
        state.holders = frozenset({members[0].id})
        state.state_epoch = epoch
        if epoch > 1:
            oldest = members[0].info
            text = f"nobody holds the state any more; {oldest.island} starts with its own"
            state.tell("state_lost", text, peer=oldest)
    change.phase = Phase.INSTALL
    change.since_s = state.now_s
    change.waiting = {peer.id for peer in recipients}
    for peer in recipients:
        if peer.id not in change.withheld:
            state.send(peer, install_message(state))
    state.update_severed()
    state.dirty = state.peers_changed = True


def _cause(change: Change, members: list[Peer], before: set[PeerId]) -> str:
    if not before:
        return "formed"
    if change.kind is ChangeKind.ABORT:
        return "loss"
    joined = any(peer.id not in before for peer in members)
    left = bool(before - {peer.id for peer in members})
    return "join_and_leave" if joined and left else "join" if joined else "leave"


def install_message(state: State) -> Install:
    newest = state.newest
    return Install(view=newest.view, kind=newest.kind, starts=newest.starts, holders=state.holders)


def _release(state: State, change: Change) -> None:
    """A member has finished what comes before `start`, so all are done with it: joiners follow."""
    for peer in state.alive(sorted(change.withheld)):
        state.send(peer, install_message(state))
    if change.withheld:
        change.since_s = state.now_s
    change.withheld = set()


def _wanted(state: State) -> list[PeerId]:
    """Members of the next view if nobody is lost: without the leavers, with the joiners."""
    members = state.members()
    staying = [peer for peer in members if not peer.leaving]
    candidates = [p for p in _ready(state) if all(linked(p, member) for member in members)]
    wanted = staying + state.alive(_clique(candidates))
    return [peer.id for peer in sorted(wanted, key=lambda peer: peer.info.order)]


def _ready(state: State) -> list[Peer]:
    peers = [
        peer
        for peer in state.peers.values()
        if peer.ready
        and peer.stream is not None
        and not peer.leaving
        and not state.is_member(peer.id)
        and peer.installed_epoch == 0
    ]
    return sorted(peers, key=lambda peer: peer.info.order)


def _clique(peers: list[Peer]) -> list[PeerId]:
    pairs = [
        (i, j)
        for i in range(len(peers))
        for j in range(i + 1, len(peers))
        if not linked(peers[i], peers[j])
    ]
    return [peers[rank].id for rank in largest_clique(len(peers), pairs)]


def _form(state: State) -> None:
    """A view from nothing, once enough are ready and linked and no more are just about to be."""
    options, now_s = state.options, state.now_s
    members = _clique(_ready(state))
    if len(members) < max(1, options.min_islands):
        state.form_since_s = None
        return
    if state.form_since_s is None:
        state.form_since_s = now_s
    if state.form_seen != frozenset(members):
        state.form_seen = frozenset(members)
        state.form_changed_s = now_s
    late = _coming(state, members) and now_s - state.form_since_s < options.form_patience_s
    if late or now_s - state.form_changed_s < options.form_settle_s:
        return
    state.form_since_s = None
    change = Change(kind=ChangeKind.ABORT, phase=Phase.INSTALL, since_s=now_s, waiting=set())
    state.change = change
    founders = state.alive(members)
    _issue(state, change, founders, founders, 0, {})


def _coming(state: State, members: Iterable[PeerId]) -> bool:
    ready = set(members)
    return any(
        peer.id not in ready and peer.stream is not None and not peer.leaving
        for peer in state.peers.values()
    )

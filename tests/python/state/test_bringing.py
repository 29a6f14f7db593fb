"""Who brings the state into a view without holders, and from where."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.control.membership import Membership
from atoll.membership.messages import PeerInfo, View
from atoll.state import sync
from atoll.state.sync import Held, StateSync

ME, OTHER = b"me".ljust(16, b"."), b"other".ljust(16, b".")


def membership(holder: bytes, start: int) -> Membership:
    infos = tuple(
        PeerInfo(id=peer, island=peer.decode().strip("."), order=order, endpoints=())
        for order, peer in enumerate((ME, OTHER), 1)
    )
    return Membership(
        peer=ME,
        order=1,
        view=View(epoch=4, members=infos),
        starts={1: start},
        holders=frozenset([holder]),
        member=True,
        peers=infos,
        donors=frozenset([holder]),
        linked=frozenset([OTHER]),
        connected=True,
        left=False,
        ended=None,
    )


class Shared:
    """Remembers what it was told."""

    channel = 1

    def __init__(self) -> None:
        self.told: list[Any] = []

    def seed(self, revision: int, members: tuple[bytes, ...]) -> None:
        self.told.append(("seed", revision, members))


def bringing(shared: Any) -> StateSync:
    nobody: Any = None
    return StateSync(nobody, nobody, shared)


@pytest.mark.parametrize("found", [True, False])
@pytest.mark.parametrize("held", [None, Held(revision=57, manifest=b"m")])
def test_the_holder_restores_before_it_begins(
    held: Held | None, found: bool, caplog: pytest.LogCaptureFixture
) -> None:
    shared: Any = Shared()

    def restore() -> bool:
        shared.told.append("restore")
        return found

    confirmed = bringing(shared)._confirm(membership(ME, 3), held, 0.0, restore)
    assert confirmed == Held(revision=3, manifest=b"")
    assert shared.told == ["restore", ("seed", 3, (ME, OTHER))]
    assert ("no holder of the state is left" in caplog.text) == (not found)


def test_who_holds_what_the_view_starts_from_restores_nothing() -> None:
    shared: Any = Shared()
    held = Held(revision=3, manifest=b"m")
    fails: Any = None
    assert bringing(shared)._confirm(membership(ME, 3), held, 0.0, fails) is held
    assert shared.told == []


def test_the_others_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(collectives: Any, receiver: Any, donors: Any, *, revision: int, **_: Any) -> None:
        asked.append((donors, revision))

    monkeypatch.setattr(sync, "fetch", fetch)
    shared: Any = Shared()
    fails: Any = None
    assert bringing(shared)._confirm(membership(OTHER, 3), None, 0.0, fails) is None
    assert asked == [(frozenset([OTHER]), 3)]
    assert shared.told == []

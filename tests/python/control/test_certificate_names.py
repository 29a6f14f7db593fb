"""An island of the job that stands at another one's address, or calls in its name: no links."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import harness
import pytest

from atoll import _core, errors
from atoll.control.client import ControlClient
from atoll.trust.authority import Authority, new_request
from atoll.trust.identity import Identity
from atoll.trust.names import Holder, Role

JOB = "reef"
NOW = datetime.now(UTC)
AUTHORITY = Authority.create(job=JOB, days=1, now=NOW)


def identity(name: str, role: Role = Role.ISLAND) -> Identity:
    key, request = new_request(name)
    holder = Holder(job=JOB, role=role, name=name)
    certificate = AUTHORITY.issue(request, holder, days=1, now=NOW)
    return Identity(certificate=certificate, key=key, authorities=AUTHORITY.pem)


@pytest.fixture
def coordinator() -> Iterator[harness.Coordinator]:
    with harness.Coordinator(identity=identity("here", Role.COORDINATOR)) as one:
        yield one


def client(coordinator: harness.Coordinator, island: str, *, links: Identity) -> ControlClient:
    """Registers with its own certificate; its links show `links`."""

    def engine(peer: bytes, secret: bytes) -> Any:
        return _core.Engine(
            peer=peer,
            secret=secret,
            shared_memory=False,
            dial_timeout_s=0.5,
            tls_certificate=links.certificate.decode(),
            tls_key=links.key.decode(),
            tls_authorities=links.authorities.decode(),
        )

    own = identity(island.removesuffix("-1"))
    return harness.client(coordinator.port, island, identity=own, engine_factory=engine)


def test_islands_link_by_their_own_names_and_their_machines(
    coordinator: harness.Coordinator,
) -> None:
    clients = [
        client(coordinator, "palm", links=identity("palm")),
        client(coordinator, "reef-1", links=identity("reef")),
        client(coordinator, "cove-1", links=identity("cove-1")),
    ]
    for one in clients:
        one.start()
        one.ready()
    for one in clients:
        one.wait(lambda now: len(now.view.members) == 3, harness.TIMEOUT_S)
        one.holding()
    assert harness.barrier(clients) == ["ok"] * 3
    assert [one.engine.stats().rejected_name for one in clients] == [0, 0, 0]
    harness.close(clients)


@pytest.mark.parametrize("first", ["honest", "posing"])
def test_another_islands_certificate_on_the_links_is_refused(
    coordinator: harness.Coordinator, first: str
) -> None:
    """As it looks when `fern`, a member, is on the way between two and answers in palm's place: the
    older one is dialled, and the younger one dials."""
    honest = client(coordinator, "reef", links=identity("reef"))
    posing = client(coordinator, "palm", links=identity("fern"))
    order = [honest, posing] if first == "honest" else [posing, honest]
    order[0].start()
    order[0].ready()
    order[0].wait(lambda now: now.member, harness.TIMEOUT_S)
    order[0].holding()
    order[1].start()
    order[1].ready()
    end_s = time.monotonic() + harness.TIMEOUT_S
    while not (stats := honest.engine.stats()).rejected_name:
        assert time.monotonic() < end_s
        assert not any(link.up for link in stats.links)
        time.sleep(0.02)
    assert not any(link.up for link in honest.engine.stats().links)
    assert not order[1].membership().member
    harness.close(order)


def test_who_is_not_let_in_for_its_certificate_hears_so_and_need_not_try_again(
    coordinator: harness.Coordinator,
) -> None:
    others = Authority.create(job=JOB, days=1, now=NOW)
    key, request = new_request("palm")
    holder = Holder(job=JOB, role=Role.ISLAND, name="palm")
    certificate = others.issue(request, holder, days=1, now=NOW)
    foreign = Identity(certificate=certificate, key=key, authorities=others.pem)
    for own, text in ((foreign, "is not the coordinator of your"), (None, "none was shown")):
        stranger = harness.client(coordinator.port, "palm", identity=own, connect_timeout_s=1.0)
        with pytest.raises(errors.CannotJoin, match=text) as refused:
            stranger.start()
        assert refused.value.final

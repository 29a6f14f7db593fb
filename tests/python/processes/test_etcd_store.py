"""The store in etcd, against a real etcd: who leads, who may write, and what a leader notices."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cluster import Etcd

from atoll.errors import ConfigError
from atoll.membership.events import Snapshot
from atoll.membership.messages import ChangeKind, View
from atoll.membership.starts import Issued
from atoll.pb import etcd_pb2 as pb
from atoll.store import Deposed, StoreUnavailable
from atoll.store.etcd import EtcdStore
from atoll.store.etcd_client import EtcdClient, EtcdError
from atoll.store.locate import open_store

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(
        not Etcd.installed(),
        reason="NOT TESTED: high availability needs `etcd`; on Debian: apt-get install etcd-server",
    ),
]

FIRST = Snapshot(
    job="reef",
    secret=bytes(32),
    next_order=1,
    next_event=1,
    attempt=1,
    pending=False,
    issued=(Issued(view=View(), kind=ChangeKind.ABORT),),
    holders=frozenset(),
    state_epoch=0,
    trained=False,
    complete=False,
    peers=(),
    islands=(),
)


def attempt(number: int) -> Snapshot:
    return replace(FIRST, attempt=number)


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    running = Etcd(tmp_path_factory.mktemp("etcd"))
    yield running
    running.kill()


class Stage:
    """Stores of one job, closed in the end."""

    def __init__(self, etcd: Etcd, prefix: str) -> None:
        self.etcd, self.prefix = etcd, prefix
        self.stores: list[EtcdStore] = []

    def store(self, **options: int) -> EtcdStore:
        self.stores.append(EtcdStore([self.etcd.addresses], self.prefix, **options))
        return self.stores[-1]


def play(etcd: Etcd, prefix: str, story: Callable[[Stage], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        stage = Stage(etcd, prefix)
        try:
            await story(stage)
        finally:
            for store in stage.stores:
                await store.close()

    asyncio.run(all_of_it())


def freeze(store: EtcdStore) -> None:
    """As if its process were stopped: nobody renews the lease."""
    assert store._keeper is not None
    store._keeper.cancel()


def unaware(store: EtcdStore) -> None:
    """Its own clock tells it nothing: what protects is etcd alone."""
    assert store._held is not None
    store._held.until_s = time.monotonic() + 3600


def test_one_leads_and_another_follows_when_it_resigns(etcd: Etcd) -> None:
    async def story(stage: Stage) -> None:
        one, other = stage.store(), stage.store()
        assert await one.lead("one:1") is None
        await one.save(attempt(1))
        await one.save(attempt(2))
        following = asyncio.create_task(other.lead("other:2"))
        while other.leader() != "one:1":
            await asyncio.sleep(0.01)
        assert not following.done()
        assert other.lost()
        await one.resign()
        assert await following == attempt(2)
        assert other.leader() == "other:2"
        assert not other.lost()
        await other.save(attempt(3))
        with pytest.raises(Deposed):
            await one.save(attempt(4))

    play(etcd, "follows", story)


def test_the_lease_of_who_is_gone_runs_out(etcd: Etcd) -> None:
    async def story(stage: Stage) -> None:
        one, other = stage.store(), stage.store()
        await one.lead("one:1")
        await one.save(attempt(7))
        await asyncio.sleep(3.0)  # longer than the lease: it is renewed meanwhile
        assert not one.lost()
        await one.save(attempt(8))
        freeze(one)
        assert await other.lead("other:2") == attempt(8)

    play(etcd, "runs-out", story)


def test_a_deposed_leader_writes_nothing_though_it_knows_of_nothing(etcd: Etcd) -> None:
    async def story(stage: Stage) -> None:
        one, other = stage.store(), stage.store()
        await one.lead("one:1")
        await one.save(attempt(1))
        freeze(one)
        assert await other.lead("other:2") == attempt(1)
        unaware(one)
        assert not one.lost()
        # The snapshot is still the one that it wrote: the leadership alone keeps it out.
        with pytest.raises(Deposed, match="other:2 leads now"):
            await one.save(attempt(99))
        unaware(one)
        assert one.lost() == "other:2 leads now"
        await other.save(attempt(2))
        await other.resign()
        third = stage.store()
        assert await third.lead("third:3") == attempt(2)

    play(etcd, "deposed", story)


def test_a_deposed_leader_that_asks_is_told(etcd: Etcd) -> None:
    async def story(stage: Stage) -> None:
        one, other = stage.store(), stage.store()
        await one.lead("one:1")
        await one.confirm()
        freeze(one)
        await other.lead("other:2")
        await other.confirm()
        unaware(one)
        with pytest.raises(Deposed, match="other:2 leads now"):
            await one.confirm()

    play(etcd, "asks", story)


def test_a_leader_that_was_stopped_notices_by_its_own_clock(etcd: Etcd) -> None:
    async def story(stage: Stage) -> None:
        one = stage.store()
        await one.lead("one:1")
        freeze(one)
        await asyncio.sleep(2.1)
        assert "was not renewed in time" in one.lost()
        with pytest.raises(Deposed, match="was not renewed in time"):
            await one.save(attempt(1))

    play(etcd, "clock", story)


def test_a_write_that_was_under_way_cannot_undo_a_later_one(etcd: Etcd) -> None:
    """A leader gave up while a write was on its way, and leads again by the same key."""

    async def story(stage: Stage) -> None:
        one = stage.store()
        await one.lead("one:1")
        await one.save(attempt(1))
        assert one._held is not None
        late = one._write(one._held, b"late")
        await one.save(attempt(2))
        reply = await one._client.txn(late, timeout_s=3.0)
        assert not reply.succeeded
        await one.save(attempt(3))

    play(etcd, "late", story)


def test_a_write_that_was_applied_but_not_confirmed_counts(etcd: Etcd) -> None:
    """A member of etcd took it and died before it said so; another one is asked again."""

    async def story(stage: Stage) -> None:
        one = stage.store()
        await one.lead("one:1")
        right = one._client.txn

        async def twice(request: pb.TxnRequest, *, timeout_s: float) -> pb.TxnResponse:
            await right(request, timeout_s=timeout_s)
            return await right(request, timeout_s=timeout_s)

        one._client.txn = twice  # type: ignore[method-assign]
        await one.save(attempt(1))
        await one.save(attempt(2))
        one._client.txn = right  # type: ignore[method-assign]
        await one.save(attempt(3))
        assert not one.lost()

    play(etcd, "twice", story)


def test_a_state_that_somebody_else_changed_is_not_overwritten(etcd: Etcd) -> None:
    async def story(stage: Stage) -> None:
        one = stage.store()
        await one.lead("one:1")
        await one.save(attempt(1))
        put = pb.RequestOp(request_put=pb.PutRequest(key=b"changed/state", value=b"{}"))
        await one._client.txn(pb.TxnRequest(success=[put]), timeout_s=3.0)
        with pytest.raises(Deposed, match="changed by somebody else"):
            await one.save(attempt(2))
        other = stage.store()
        await one.resign()
        with pytest.raises(ConfigError, match="the state is corrupt"):
            await other.lead("other:1")

    play(etcd, "changed", story)


def test_an_etcd_that_is_away_is_unavailable_and_comes_back(tmp_path: Path) -> None:
    etcd = Etcd(tmp_path)

    async def story(stage: Stage) -> None:
        one = stage.store()
        await one.lead("one:1")
        await one.save(attempt(1))
        etcd.kill()
        with pytest.raises(StoreUnavailable):
            await one.save(attempt(2))
        with pytest.raises(StoreUnavailable, match="etcd does not answer"):
            await one.lead("one:1")
        etcd.start()
        again = await one.lead("one:1")
        assert again is not None
        assert again.attempt in (1, 2)
        await one.save(attempt(3))

    try:
        play(etcd, "away", story)
    finally:
        etcd.kill()


def test_another_member_is_asked_when_one_does_not_answer(etcd: Etcd) -> None:
    async def story() -> None:
        client = EtcdClient(["127.0.0.1:1", etcd.addresses])
        assert await client.range(b"nothing", timeout_s=5.0) is None
        lease, ttl_s = await client.grant(2, timeout_s=5.0)
        assert ttl_s >= 2
        assert await client.keep_alive(lease, timeout_s=5.0) >= 2
        await client.revoke(lease, timeout_s=5.0)
        assert await client.keep_alive(lease, timeout_s=5.0) == 0
        with pytest.raises(EtcdError, match="not_found") as error:
            await client.revoke(lease, timeout_s=5.0)
        assert error.value.answered
        await client.close()

    asyncio.run(story())


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command is not installed")
def test_over_tls_with_certificates_from_both_sides(tmp_path: Path) -> None:
    key = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    ca, own, private = (tmp_path / name for name in ("ca.pem", "own.pem", "own.key"))
    request, extra = tmp_path / "own.csr", tmp_path / "extra"
    openssl(*key, "-x509", "-days", "2", "-subj", "/CN=ca", "-keyout", tmp_path / "ca.key",
            "-out", ca)  # fmt: skip
    openssl(*key, "-subj", "/CN=etcd", "-keyout", private, "-out", request)
    extra.write_text("subjectAltName=IP:127.0.0.1")
    openssl("x509", "-req", "-in", request, "-days", "2", "-CA", ca, "-CAkey", tmp_path / "ca.key",
            "-CAcreateserial", "-extfile", extra, "-out", own)  # fmt: skip
    tls = ("--cert-file", own, "--key-file", private, "--client-cert-auth", "--trusted-ca-file", ca)
    etcd = Etcd(tmp_path, tls=tls)

    async def story() -> None:
        files = f"?ca={ca}&cert={own}&key={private}"
        store = open_store(f"etcds://{etcd.addresses}/tls{files}", job="reef")
        assert await store.lead("one:1") is None
        await store.save(attempt(1))
        assert store.where == f"etcds://{etcd.addresses}/tls"
        await store.close()
        for wrong in (f"etcds://{etcd.addresses}/tls?ca={ca}", f"etcd://{etcd.addresses}/tls"):
            stranger = open_store(wrong, job="reef")
            with pytest.raises(StoreUnavailable):
                await stranger.lead("one:1")
            await stranger.close()

    try:
        asyncio.run(story())
    finally:
        etcd.kill()

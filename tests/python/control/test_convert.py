"""Messages on the wire: every message there and back, everything else refused."""

from __future__ import annotations

import contextlib
import dataclasses
import math

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from atoll.control import convert
from atoll.control.fields import MalformedMessage
from atoll.membership import messages as m
from atoll.pb import control_pb2 as pb

IDS = st.binary(min_size=16, max_size=16)
NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=500), min_size=1, max_size=20).filter(
    str.isprintable
)
BIG = st.integers(0, 2**64 - 1)
CHANNELS = st.integers(0, 2**32 - 1)
ENDPOINTS = st.lists(st.builds(m.Endpoint, host=NAMES, port=st.integers(1, 65535)), max_size=3).map(
    tuple
)
SHARDS = st.integers(0, 4095)
INFOS = st.builds(m.PeerInfo, id=IDS, island=NAMES, order=BIG, endpoints=ENDPOINTS, shard=SHARDS)
DEPARTURES = st.sampled_from(m.Departure)
KINDS = st.sampled_from(m.ChangeKind)
FLOATS = st.floats(0, 1e9)

PEER_MESSAGES: st.SearchStrategy[m.PeerMessage] = st.one_of(
    st.builds(
        m.Register,
        protocol_version=st.integers(0, 99),
        software_version=NAMES,
        job=NAMES,
        peer=IDS,
        island=NAMES,
        installed_epoch=BIG,
        shard=SHARDS,
        shards=st.integers(1, 4096),
    ),
    st.builds(m.Listening, endpoints=ENDPOINTS),
    st.builds(m.Heartbeat),
    st.builds(m.Linked, peers=st.frozensets(IDS)),
    st.builds(m.Ready),
    st.builds(m.Holding),
    st.builds(
        m.Fenced,
        attempt=BIG,
        epoch=BIG,
        progress=st.dictionaries(
            CHANNELS, st.builds(m.Counters, started=BIG, done=BIG, committed=BIG), max_size=5
        ),
    ),
    st.builds(m.Installed, epoch=BIG),
    st.builds(m.Suspect, peer=IDS, reason=DEPARTURES, message=NAMES),
    st.builds(m.Leave, reason=DEPARTURES),
    st.builds(
        m.Report,
        round=BIG,
        loss=FLOATS,
        tokens=BIG,
        tokens_per_s=FLOATS,
        sync_s=FLOATS,
        sent_bytes=BIG,
        received_bytes=BIG,
        digest=NAMES,
        phase=NAMES,
        validation_loss=FLOATS,
        contributed=st.booleans(),
        metrics_port=st.integers(0, 65535),
        epoch=BIG,
    ),
)
COORDINATOR_MESSAGES: st.SearchStrategy[m.CoordinatorMessage] = st.one_of(
    st.builds(
        m.Welcome,
        order=BIG,
        secret=st.binary(min_size=32, max_size=32),
        heartbeat_s=st.floats(0.001, 3600),
        min_islands=st.integers(0, 99),
    ),
    st.builds(m.Peers, peers=st.lists(INFOS, max_size=4).map(tuple), holders=st.frozensets(IDS)),
    st.builds(m.Fence, attempt=BIG, kind=KINDS),
    st.builds(
        m.Install,
        view=st.builds(m.View, epoch=BIG, members=st.lists(INFOS, max_size=4).map(tuple)),
        kind=KINDS,
        starts=st.dictionaries(CHANNELS, BIG, max_size=5),
        holders=st.frozensets(IDS),
    ),
    st.builds(m.Expelled, reason=DEPARTURES, message=NAMES),
    st.builds(m.Refused, message=NAMES),
    st.builds(m.StopNotice, message=NAMES),
    st.builds(m.Heartbeat),
)


@given(PEER_MESSAGES)
def test_what_a_peer_says_arrives(message: m.PeerMessage) -> None:
    data = convert.peer_message_to_pb(message).SerializeToString()
    assert convert.peer_message_from_pb(pb.PeerMessage.FromString(data)) == message


@given(COORDINATOR_MESSAGES)
def test_what_the_coordinator_says_arrives(message: m.CoordinatorMessage) -> None:
    data = convert.coordinator_message_to_pb(message).SerializeToString()
    assert convert.coordinator_message_from_pb(pb.CoordinatorMessage.FromString(data)) == message


@pytest.mark.parametrize(
    ("message", "part"),
    [
        (pb.PeerMessage(), "empty or unknown"),
        (pb.PeerMessage(register=pb.Register(job="j", island="i", peer_id=b"short")), "5 bytes"),
        (pb.PeerMessage(register=pb.Register(job="j", peer_id=bytes(16))), "an island is empty"),
        (
            pb.PeerMessage(register=pb.Register(job="j\n", island="i", peer_id=bytes(16))),
            "not printable",
        ),
        (pb.PeerMessage(leave=pb.Leave()), "unknown departure 0"),
        (pb.PeerMessage(leave=pb.Leave(reason=99)), "unknown departure 99"),  # type: ignore[arg-type]
        (pb.PeerMessage(linked=pb.Linked(peer_ids=[bytes(16)] * 5000)), "more than 4096 peers"),
        (pb.PeerMessage(listening=pb.Listening(endpoints=[pb.Endpoint(host="h")])), "port 0"),
        (
            pb.PeerMessage(
                fenced=pb.FencedReply(progress=[pb.ChannelProgress(), pb.ChannelProgress()])
            ),
            "named twice",
        ),
        (pb.PeerMessage(report=pb.Report(sync_s=math.inf)), "no number"),
        (pb.PeerMessage(report=pb.Report(phase="x" * 300)), "300 characters"),
    ],
)
def test_a_malformed_message_is_refused_by_name(message: pb.PeerMessage, part: str) -> None:
    with pytest.raises(MalformedMessage, match=part):
        convert.peer_message_from_pb(message)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    with contextlib.suppress(DecodeError, MalformedMessage):
        convert.peer_message_from_pb(pb.PeerMessage.FromString(data))


def test_reports_have_the_same_fields_on_both_sides() -> None:
    ours = {field.name for field in dataclasses.fields(m.Report)}
    assert ours == {field.name for field in pb.Report.DESCRIPTOR.fields}

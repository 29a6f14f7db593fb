"""Settings: precedence, origins, and messages that say what to do."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from pathlib import Path

import pytest

from atoll.client import make_client
from atoll.config import (
    SessionSettings,
    TomlTable,
    load,
    parse_address,
    parse_hosts,
    read_toml,
    session_settings,
    setting,
    unknown_variables,
)
from atoll.errors import ConfigError
from atoll_launcher.settings import reached_at
from atoll_launcher.trust.commands import token_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    count: int = setting(1, "A count.", minimum=1, maximum=9)
    rate: float = setting(0.5, "A rate.")
    flag: bool = setting(False, "A flag.")
    name: str | None = setting(None, "A name.")
    place: Path = setting(Path("here"), "A place.")  # noqa: RUF009 - not mutable
    peer: str | None = setting(None, "An address.", check=parse_address)


def table(**values: object) -> TomlTable:
    return TomlTable(name="a.toml [run]", values=values)


def test_later_sources_win_and_are_remembered() -> None:
    loaded = load(
        Sample,
        toml=table(count=2, rate=1, flag=True),
        env={"ATOLL_RATE": "2.5", "ATOLL_NAME": "palm", "ATOLL_COUNT": "3"},
        overrides={"count": 4},
        override_name="--{}".format,
    )
    assert loaded.value == Sample(count=4, rate=2.5, flag=True, name="palm")
    assert loaded.origins == {
        "count": "--count",
        "rate": "ATOLL_RATE",
        "flag": "a.toml [run]",
        "name": "ATOLL_NAME",
        "place": "default",
        "peer": "default",
    }


def test_a_variable_set_to_nothing_counts_as_not_set() -> None:
    assert load(Sample, env={"ATOLL_COUNT": ""}).value.count == 1


@pytest.mark.parametrize(
    ("toml", "env", "overrides", "message"),
    [
        ({"cuont": 1}, {}, {}, "a.toml [run]: unknown key 'cuont', did you mean 'count'?"),
        ({}, {}, {"plaice": 1}, "arguments: unknown key 'plaice', did you mean 'place'?"),
        ({"count": "2"}, {}, {}, "count = '2' (from a.toml [run]): expected a whole number"),
        ({"count": True}, {}, {}, "count = True (from a.toml [run]): expected a whole number"),
        ({"count": 1.0}, {}, {}, "count = 1.0 (from a.toml [run]): expected a whole number"),
        ({"flag": 1}, {}, {}, "flag = 1 (from a.toml [run]): expected true or false"),
        ({"name": 1}, {}, {}, "name = 1 (from a.toml [run]): expected text"),
        ({}, {"ATOLL_COUNT": "x"}, {}, "count = 'x' (from ATOLL_COUNT): expected a whole number"),
        ({}, {"ATOLL_COUNT": "0"}, {}, "count = '0' (from ATOLL_COUNT): must be at least 1"),
        ({}, {}, {"count": 10}, "count = 10 (from argument count): must be at most 9"),
        ({}, {"ATOLL_RATE": "nan"}, {}, "rate = 'nan' (from ATOLL_RATE): expected a finite number"),
        ({}, {"ATOLL_FLAG": "maybe"}, {}, "flag = 'maybe' (from ATOLL_FLAG): expected true or"),
        ({}, {"ATOLL_PEER": "a"}, {}, "peer = 'a' (from ATOLL_PEER): expected HOST:PORT"),
    ],
)
def test_bad_values_name_key_value_and_origin(
    toml: dict[str, object], env: dict[str, str], overrides: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(Sample, toml=table(**toml), env=env, overrides=overrides)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[rum]\nislands = 1", "unknown key 'rum', did you mean 'run'?; settings go under [run]"),
        ("run = 1", "'run' must be a table; write it as [run]"),
        ("run = ", "not valid TOML"),
    ],
)
def test_bad_files_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"a\.toml") as caught:
        read_toml(path, ["run"])
    assert message in str(caught.value)


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_toml(tmp_path / "none.toml", ["run"])


def test_tables_come_back_with_the_name_that_messages_use(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("[run]\nislands = 3\n")
    tables = read_toml(path, ["run", "session"])
    assert tables["run"] == TomlTable(name=f"{path} [run]", values={"islands": 3})
    assert tables["session"].values == {}


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:70", ("127.0.0.1", 70)), ("[::1]:0", ("::1", 0)), ("host:65535", ("host", 65535))],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "host", ":80", "host:", "host:x", "host:65536", "::1:80"])
def test_bad_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_address(text)


def test_addresses_of_one_island() -> None:
    assert parse_hosts("10.0.0.7") == ("10.0.0.7",)
    assert parse_hosts("10.0.0.7, [::1],a.b") == ("10.0.0.7", "::1", "a.b")


def test_unknown_variables_name_the_nearest() -> None:
    env = {"ATOLL_COORDINATER": "a:1", "ATOLL_JOB": "x", "PATH": "/bin", "ATOLL_ZZZ": "1"}
    assert unknown_variables(env, ["ATOLL_COORDINATOR", "ATOLL_JOB"]) == [
        "environment variable ATOLL_COORDINATER is not known, did you mean 'ATOLL_COORDINATOR'?",
        "environment variable ATOLL_ZZZ is not known",
    ]


def test_session_settings(caplog: pytest.LogCaptureFixture) -> None:
    env = {"ATOLL_COORDINATOR": "127.0.0.1:7000", "ATOLL_SILENCE_S": "2", "ATOLL_SILENSE_S": "9"}
    with caplog.at_level(logging.WARNING):
        found = session_settings({"job": "lagoon", "metrics_port": -1}, env)
    assert found == SessionSettings(
        coordinator="127.0.0.1:7000", silence_s=2.0, job="lagoon", metrics_port=-1
    )
    assert "did you mean 'ATOLL_SILENCE_S'?" in caplog.text


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (
            {"HEARTBEAT_S": "5"},
            "heartbeat_s = 5.0 (from ATOLL_HEARTBEAT_S) and silence_s = 5.0 (from default): the "
            "heartbeat must be shorter than the silence, best by five times or more",
        ),
        (
            {"HEARTBEAT_S": "3", "SILENCE_S": "2"},
            "heartbeat_s = 3.0 (from ATOLL_HEARTBEAT_S) and silence_s = 2.0 (from "
            "ATOLL_SILENCE_S): the heartbeat must be shorter",
        ),
        (
            {"SHARD": "2", "SHARDS": "2"},
            "shard = 2 (from ATOLL_SHARD) and shards = 2 (from ATOLL_SHARDS): shards are counted",
        ),
        (
            {"SHARDS": "2", "COORDINATOR": "h:1"},
            "island = None (from default) and shards = 2 (from ATOLL_SHARDS): the shards of an",
        ),
        ({"HEARTBEAT_S": "0"}, "heartbeat_s = '0' (from ATOLL_HEARTBEAT_S): must be at least 0.01"),
        ({"HEARTBEAT_S": "nan"}, "expected a finite number"),
        ({"SILENCE_S": "1e6"}, "silence_s = '1e6' (from ATOLL_SILENCE_S): must be at most 86400"),
        ({"REPAIR_GRACE_S": "-1"}, "(from ATOLL_REPAIR_GRACE_S): must be at least 0.01"),
        ({"DIAL_TIMEOUT_S": "0"}, "(from ATOLL_DIAL_TIMEOUT_S): must be at least 0.1"),
        ({"HANDSHAKE_TIMEOUT_S": "soon"}, "(from ATOLL_HANDSHAKE_TIMEOUT_S): expected a number"),
        ({"KEEPALIVE_S": "0.5"}, "must be a whole number of seconds, or 0"),
        ({"KEEPALIVE_S": "-1"}, "must be a whole number of seconds, or 0"),
        ({"ADVERTISE_HOST": "10.0.0.7,,b"}, "(from ATOLL_ADVERTISE_HOST): expected HOST or HOST,"),
        ({"ADVERTISE_HOST": ",".join("h" * 17)}, "expected at most 16 addresses"),
        ({"CONNECTIONS": "17"}, "connections = '17' (from ATOLL_CONNECTIONS): must be at most 16"),
        ({"CONNECTIONS": "0"}, "connections = '0' (from ATOLL_CONNECTIONS): must be at least 1"),
    ],
)
def test_times_of_links_that_make_no_sense_are_one_line(env: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        session_settings({}, {f"ATOLL_{name}": value for name, value in env.items()})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_the_settings_say_of_links_reaches_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, object]] = []
    monkeypatch.setattr("atoll._core.Engine", lambda **options: made.append(options))
    env = {
        "ATOLL_CONNECTIONS": "3",
        "ATOLL_HEARTBEAT_S": "0.25",
        "ATOLL_SILENCE_S": "2",
        "ATOLL_REPAIR_GRACE_S": "0.75",
        "ATOLL_DIAL_TIMEOUT_S": "7",
        "ATOLL_HANDSHAKE_TIMEOUT_S": "6",
        "ATOLL_KEEPALIVE_S": "0",
        "ATOLL_CONGESTION": "cubic",
    }
    for chosen in (env, {}):
        monkeypatch.setattr("atoll.alone.AloneClient", lambda **given: given["engine_factory"])
        factory = make_client(
            session_settings({}, chosen),
            "a",
            on_op_ended=lambda op: None,
            on_fence_over=lambda kind, seconds: None,
        )
        factory(b"p" * 16, b"s" * 32)  # type: ignore[operator]
    names = [name.removeprefix("ATOLL_").lower() for name in env]
    assert [made[0][name] for name in names] == [3, 0.25, 2.0, 0.75, 7.0, 6.0, 0.0, "cubic"]
    assert [made[1][name] for name in names] == [0, 0.5, 5.0, 1.0, 10.0, 5.0, 15.0, ""]


def test_advertise_says_where_islands_listen_and_are_dialled() -> None:
    assert reached_at("a.example,10.0.0.7", "127.0.0.1") == {
        "ATOLL_ADVERTISE_HOST": "a.example,10.0.0.7",
        "ATOLL_BIND_HOST": "0.0.0.0",
    }
    assert reached_at("2001:db8::7", "127.0.0.1")["ATOLL_BIND_HOST"] == "::"
    # Where they listen on purpose, and where nobody else is meant, that stays.
    assert reached_at("a.example", "10.0.0.7") == {"ATOLL_ADVERTISE_HOST": "a.example"}
    assert reached_at("127.0.0.1", "127.0.0.1") == {"ATOLL_ADVERTISE_HOST": "127.0.0.1"}
    with pytest.raises(ConfigError, match="--advertise 'a b': expected HOST or HOST,HOST"):
        reached_at("a b", "127.0.0.1")


def test_a_token_comes_in_a_file_or_by_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("atoll2.a.b\nnot this\n")
    assert token_of(None, None) is None
    assert token_of("atoll2.c.d", None) == "atoll2.c.d"
    assert token_of("atoll2.c.d", str(file)) == "atoll2.a.b"
    monkeypatch.setattr("sys.stdin", io.StringIO("atoll2.e.f\n"))
    assert token_of(None, "-") == "atoll2.e.f"
    file.write_text("\n")
    for name, text in ((str(file), "no token in its first line"), ("none", "No such file")):
        with pytest.raises(ConfigError, match=text):
            token_of(None, name)

"""Settings: precedence, origins, and messages that say what to do."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import pytest

from atoll.config import (
    SessionSettings,
    TomlTable,
    load,
    parse_address,
    read_toml,
    session_settings,
    setting,
    unknown_variables,
)
from atoll.errors import ConfigError


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

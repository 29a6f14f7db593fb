"""Settings: frozen dataclasses filled from defaults < TOML < environment < arguments.

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Settings:
        port: int = setting(0, "Port to listen on; 0: any.", minimum=0, maximum=65535)

    loaded = load(Settings, env=os.environ)
    loaded.value.port, loaded.origins["port"]       # 7000, "ATOLL_PORT"

A setting `field` is called `ATOLL_FIELD` in the environment. An unknown key in a file or an
argument is an error that names the nearest right one; an unknown `ATOLL_*` variable may be meant
for somebody else and is worth a warning (`unknown_variables`). A variable that is set to nothing
counts as not set.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import os
import tomllib
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from atoll.config_values import converted
from atoll.errors import ConfigError

PREFIX = "ATOLL_"
MAX_HOSTS = 16
"""Of one island; a link's dialer tries as many addresses."""

T = TypeVar("T")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded(Generic[T]):
    """Settings, and for each of them where its value comes from."""

    value: T
    origins: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TomlTable:
    """A table of a TOML file: `name` is the file as the user calls it, with the table's name."""

    name: str
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rules:
    help: str
    minimum: float | None = None
    maximum: float | None = None
    check: Callable[[Any], object] | None = None


def setting(
    default: object,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    check: Callable[[Any], object] | None = None,
) -> Any:
    """Declare a field of a settings class; `check` raises ValueError for a value it does not like.

    Types that can be loaded: str, int, float, bool, Path, and each of them with `| None`.
    """
    rules = _Rules(help=help, minimum=minimum, maximum=maximum, check=check)
    return dataclasses.field(default=default, metadata={"atoll": rules})


def parse_address(text: str) -> tuple[str, int]:
    """Split `host:port`, or `[host]:port` for IPv6; raise ValueError with a readable reason."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or (":" in host and not bracketed):
        raise ValueError("expected HOST:PORT, for example 127.0.0.1:7000")
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"expected a port from 0 to 65535 after the colon, not {port!r}")
    return host.strip("[]"), int(port)


def parse_addresses(text: str) -> tuple[str, ...]:
    """Split addresses at their commas; raise ValueError with a readable reason."""
    addresses = tuple(address.strip() for address in text.split(","))
    for address in addresses:
        parse_address(address)
    return addresses


def parse_hosts(text: str) -> tuple[str, ...]:
    """Split `host,host`; raise ValueError with a readable reason."""
    hosts = tuple(host.strip().strip("[]") for host in text.split(","))
    if not all(host and host.isprintable() and " " not in host for host in hosts):
        raise ValueError("expected HOST or HOST,HOST, for example 10.0.0.7,island.example.org")
    if len(hosts) > MAX_HOSTS:
        raise ValueError(f"expected at most {MAX_HOSTS} addresses")
    return hosts


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` was most likely meant to be, if one is close."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def read_toml(path: Path, tables: Sequence[str]) -> dict[str, TomlTable]:
    """Read the named tables of a TOML file; those that are not in it come back empty.

    Raises ConfigError when the file cannot be read, is no TOML, or holds anything else.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise ConfigError(f"{path}: {reason}; check the path given with --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    for key, value in data.items():
        if key not in tables:
            wanted = ", ".join(f"[{table}]" for table in tables)
            raise ConfigError(
                f"{path}: unknown key '{key}'{_did_you_mean(key, tables)}; "
                f"settings go under {wanted}"
            )
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: '{key}' must be a table; write it as [{key}]")
    return {
        table: TomlTable(name=f"{path} [{table}]", values=data.get(table, {})) for table in tables
    }


def load(
    cls: type[T],
    *,
    toml: TomlTable | None = None,
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
    override_name: Callable[[str], str] = "argument {}".format,
) -> Loaded[T]:
    """Fill a settings class: defaults < `toml` < `env` < `overrides`.

    `override_name` turns a key of `overrides` into what the user typed, for origins and messages.
    Raises ConfigError for an unknown key (not in `env`, which is everybody's), a bad value, and
    values that do not go together, by the class's `conflict()`, if it has one: the names of some
    fields and why not, or None. The message names key, value and origin.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    values: dict[str, object] = {}
    origins = dict.fromkeys(fields, "default")

    def take(key: str, raw: object, origin: str, is_text: bool) -> None:
        values[key] = _checked(key, raw, origin, hints[key], fields[key], is_text)
        origins[key] = origin

    if toml is not None:
        for key, raw in toml.values.items():
            _require_known(key, fields, toml.name)
            take(key, raw, toml.name, False)
    for key in fields:
        text = (env or {}).get(PREFIX + key.upper(), "")
        if text:
            take(key, text, PREFIX + key.upper(), True)
    for key, raw in (overrides or {}).items():
        _require_known(key, fields, "arguments")
        take(key, raw, override_name(key), False)
    value = cls(**values)
    _check_together(value, origins)
    return Loaded(value=value, origins=origins)


def describe(cls: type[object]) -> dict[str, str]:
    """Return the help text of each field of a settings class."""
    return {field.name: _rules(field).help for field in dataclasses.fields(cls)}  # type: ignore[arg-type]


def variables(cls: type[object]) -> list[str]:
    """Return the names that the fields of a settings class have in the environment."""
    return [PREFIX + field.name.upper() for field in dataclasses.fields(cls)]  # type: ignore[arg-type]


def unknown_variables(env: Mapping[str, str], known: Iterable[str]) -> list[str]:
    """Return a one-line warning for each `ATOLL_*` variable that is not among `known`."""
    names = {name.removeprefix(PREFIX): name for name in known}
    warnings = []
    for name in sorted(env):
        if name.startswith(PREFIX) and name not in names.values():
            # Without the prefix, which would make all of them look alike.
            near = nearest(name.removeprefix(PREFIX), names)
            hint = f", did you mean '{names[near]}'?" if near else ""
            warnings.append(f"environment variable {name} is not known{hint}")
    return warnings


# --- one value ------------------------------------------------------------------------------------


def _rules(field: dataclasses.Field[Any]) -> _Rules:
    rules = field.metadata.get("atoll")
    return rules if isinstance(rules, _Rules) else _Rules(help="")


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = nearest(name, known)
    return f", did you mean '{near}'?" if near else ""


def _require_known(key: str, known: Iterable[str], where: str) -> None:
    names = sorted(known)
    if key not in names:
        hint = _did_you_mean(key, names) or f"; known are: {', '.join(names)}"
        raise ConfigError(f"{where}: unknown key '{key}'{hint}")


def _checked(
    key: str, raw: object, origin: str, hint: Any, field: dataclasses.Field[Any], is_text: bool
) -> object:
    rules = _rules(field)
    try:
        value = converted(raw, hint, is_text)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if rules.minimum is not None and value < rules.minimum:
                raise ValueError(f"must be at least {rules.minimum:g}")
            if rules.maximum is not None and value > rules.maximum:
                raise ValueError(f"must be at most {rules.maximum:g}")
        if rules.check is not None and value is not None:
            rules.check(value)
    except ValueError as error:
        raise ConfigError(f"{key} = {raw!r} (from {origin}): {error}") from None
    return value


def _check_together(value: object, origins: Mapping[str, str]) -> None:
    """Asks `value.conflict()`, if it has that, for fields that do not go together, and why."""
    conflict = getattr(value, "conflict", lambda: None)()
    if conflict is not None:
        keys, why = conflict
        shown = [f"{key} = {getattr(value, key)!r} (from {origins[key]})" for key in keys]
        raise ConfigError(f"{' and '.join(shown)}: {why}")


# --- the session's --------------------------------------------------------------------------------


_LONGEST_S = 24 * 3600.0
"""Of the times of a link: what the kernel is told as well is cut there."""


def _whole_seconds(value: float) -> None:
    if value < 0 or value != int(value):
        raise ValueError("must be a whole number of seconds, or 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """How `atoll.join` finds its job and speaks with the other islands."""

    coordinator: str | None = setting(
        None,
        "HOST:PORT of the job's coordinator, or of several, with commas; not set: train alone.",
        check=parse_addresses,
    )
    job: str = setting("job", "Name of the job; peers of another job are refused.")
    island: str | None = setting(
        None, "Name of this island, unique in the job; not set: host name and process id."
    )
    shard: int = setting(
        0, "Which of its island's peers this one is; peers of one index form a ring.", minimum=0
    )
    shards: int = setting(
        1,
        "Peers of this island, which come and go together; as many as in every other island.",
        minimum=1,
        maximum=4096,
    )
    advertise_host: str = setting(
        "127.0.0.1",
        "Address under which the other islands reach this one, or several with commas between, the "
        "best first.",
        check=parse_hosts,
    )
    bind_host: str = setting("127.0.0.1", "Address on which this island listens for the others.")
    connections: int | None = setting(
        None,
        "TCP connections to each of the other islands; not set: as its round trip needs.",
        minimum=1,
        maximum=16,
    )
    congestion: str = setting(
        "system",
        "Congestion control of links: system, auto (BBR where the path is long and the system has "
        "it), or a name that the system knows (cubic, bbr, reno).",
    )
    shared_memory: bool = setting(
        True, "Link with islands on the same host through shared memory instead of TCP."
    )
    tls_cert: Path | None = setting(  # noqa: RUF009 - not mutable
        None,
        "PEM file: this island's certificate, then intermediate ones. With it, its key and the CA, "
        "links over the network and the way to the coordinator are TLS 1.3 with certificates from "
        "both sides.",
    )
    tls_key: Path | None = setting(None, "PEM file: the certificate's private key.")  # noqa: RUF009
    tls_ca: Path | None = setting(  # noqa: RUF009 - not mutable
        None, "PEM file: the authorities to which the other islands' certificates must chain up."
    )
    tls_dir: Path | None = setting(  # noqa: RUF009 - not mutable
        None,
        "Folder with cert.pem, key.pem and ca.pem, in place of the three above; see atoll certs.",
    )
    insecure: bool = setting(
        False,
        "Listen beyond this machine without certificates, on a network that you trust.",
    )
    link_crc: bool = setting(
        False, "A checksum (CRC-32C) on every frame that goes over a socket, in both directions."
    )
    keepalive_s: float = setting(
        15.0,
        "Idle connections are probed by the kernel after so long, in whole seconds; 0: never.",
        maximum=_LONGEST_S,
        check=_whole_seconds,
    )
    probe: bool = setting(
        True, "Whether this island measures its links when the coordinator says so."
    )
    connect_timeout_s: float = setting(
        20.0, "How long joining may wait for the coordinator.", minimum=0.1
    )
    heartbeat_s: float = setting(
        0.5,
        "A connection on which nothing was sent for so long carries a heartbeat.",
        minimum=0.01,
        maximum=_LONGEST_S,
    )
    silence_s: float = setting(
        5.0,
        "A link that is silent for so long is reported as lost.",
        minimum=0.1,
        maximum=_LONGEST_S,
    )
    repair_grace_s: float = setting(
        1.0,
        "A link has lost all connections and only the other island can dial: it has so long.",
        minimum=0.01,
        maximum=_LONGEST_S,
    )
    dial_timeout_s: float = setting(
        10.0,
        "How long a link to another island is tried before it is reported as unreachable.",
        minimum=0.1,
        maximum=_LONGEST_S,
    )
    handshake_timeout_s: float = setting(
        5.0,
        "How long a connection may take to say, with TLS if asked for, who it is.",
        minimum=0.1,
        maximum=_LONGEST_S,
    )
    form_timeout_s: float = setting(
        600.0, "How long to wait for enough islands, and for the shared state.", minimum=0.1
    )
    op_timeout_s: float = setting(
        1800.0, "A collective that takes longer fails on all islands.", minimum=0.001
    )
    leave_s: float = setting(
        30.0,
        "When this island is told to leave (SIGTERM, atoll drain), it has so long, three quarters "
        "of it for the running round; 0: SIGTERM is not looked at.",
        minimum=0,
        maximum=_LONGEST_S,
    )
    metrics_port: int = setting(
        0, "Port of the Prometheus metrics; 0: any; -1: none.", minimum=-1, maximum=65535
    )
    log_dir: Path | None = setting(  # noqa: RUF009 - not mutable
        None, "Folder for what the session writes down; not set: nothing."
    )
    checkpoint_url: str | None = setting(
        None,
        "Folder or URL (s3://bucket/run) of the job's checkpoints, which all islands reach; "
        "not set: none are written or restored.",
    )
    checkpoint_every: int = setting(10, "Rounds (or steps) between two checkpoints.", minimum=1)
    checkpoint_keep: int = setting(3, "Complete checkpoints that are kept.", minimum=1)
    checkpoint_close_s: float = setting(
        60.0, "How long closing a session may wait for its last checkpoint.", minimum=0
    )
    restart: int = setting(0, "How often the launcher has started this island again.", minimum=0)

    def conflict(self) -> tuple[tuple[str, ...], str] | None:
        """Fields that do not go together, and why not."""
        if self.heartbeat_s >= self.silence_s:
            why = "the heartbeat must be shorter than the silence, best by five times or more"
            return ("heartbeat_s", "silence_s"), why
        if self.shard >= self.shards:
            return ("shard", "shards"), "shards are counted from 0, so the last is shards - 1"
        if self.shards > 1 and self.coordinator is not None and self.island is None:
            return ("island", "shards"), "the shards of an island find each other by its name"
        if self.tls_dir is not None and self.tls_cert is not None:
            return ("tls_dir", "tls_cert"), "name a folder or files, not both"
        return None


def session_settings(
    overrides: Mapping[str, object], env: Mapping[str, str] | None = None
) -> SessionSettings:
    """Return the session's settings: defaults < `env` (the process's own) < `overrides`.

    Unknown `ATOLL_*` variables are logged as warnings. Raises ConfigError.
    """
    env = os.environ if env is None else env
    for warning in unknown_variables(env, variables(SessionSettings)):
        logger.warning("%s", warning)
    return load(SessionSettings, env=env, overrides=overrides).value

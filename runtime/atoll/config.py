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
import math
import os
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from atoll.errors import ConfigError

PREFIX = "ATOLL_"

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
    Raises ConfigError for an unknown key (not in `env`, which is everybody's) and a bad value; the
    message names key, value and origin.
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
    return Loaded(value=cls(**values), origins=origins)


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
        value = _converted(raw, hint, is_text)
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


_BOOLEANS = {"1": True, "true": True, "yes": True, "on": True} | {
    "0": False, "false": False, "no": False, "off": False,
}  # fmt: skip


def _converted(raw: object, hint: Any, is_text: bool) -> object:
    """Return `raw` as the type `hint`; only text from the environment is parsed."""
    if isinstance(hint, types.UnionType):
        if raw is None:
            return None
        (hint,) = (part for part in hint.__args__ if part is not type(None))
    if hint is bool:
        if is_text and isinstance(raw, str) and raw.lower() in _BOOLEANS:
            return _BOOLEANS[raw.lower()]
        if isinstance(raw, bool):
            return raw
        raise ValueError("expected true or false")
    if hint is int:
        if is_text and isinstance(raw, str):
            return _parsed(int, raw, "expected a whole number")
        if isinstance(raw, int) and not isinstance(raw, bool):
            return raw
        raise ValueError("expected a whole number")
    if hint is float:
        number = _parsed(float, raw, "expected a number") if is_text else raw
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            if not math.isfinite(number):
                raise ValueError("expected a finite number")
            return float(number)
        raise ValueError("expected a number")
    if hint is Path and isinstance(raw, (str, Path)):
        return Path(raw)
    if hint is str and isinstance(raw, str):
        return raw
    raise ValueError("expected text" if hint in (str, Path) else f"cannot load a {hint}")


def _parsed(parse: Callable[[Any], object], raw: object, message: str) -> object:
    try:
        return parse(raw)
    except ValueError:
        raise ValueError(message) from None


# --- the session's --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """How `atoll.join` finds its job and speaks with the other islands."""

    coordinator: str | None = setting(
        None, "HOST:PORT of the job's coordinator; not set: train alone.", check=parse_address
    )
    job: str = setting("job", "Name of the job; peers of another job are refused.")
    island: str | None = setting(
        None, "Name of this island, unique in the job; not set: host name and process id."
    )
    advertise_host: str = setting(
        "127.0.0.1", "Address under which the other islands reach this one."
    )
    bind_host: str = setting("127.0.0.1", "Address on which this island listens for the others.")
    connections: int = setting(
        2, "TCP connections to each of the other islands.", minimum=1, maximum=64
    )
    connect_timeout_s: float = setting(
        20.0, "How long joining may wait for the coordinator.", minimum=0.1
    )
    silence_s: float = setting(
        5.0, "A link that is silent for so long is reported as lost.", minimum=0.1
    )
    form_timeout_s: float = setting(
        600.0, "How long to wait for enough islands, and for the shared state.", minimum=0.1
    )
    op_timeout_s: float = setting(
        1800.0, "A collective that takes longer fails on all islands.", minimum=0.001
    )
    metrics_port: int = setting(
        0, "Port of the Prometheus metrics; 0: any; -1: none.", minimum=-1, maximum=65535
    )
    log_dir: Path | None = setting(  # noqa: RUF009 - not mutable
        None, "Folder for what the session writes down; not set: nothing."
    )
    restart: int = setting(0, "How often the launcher has started this island again.", minimum=0)


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

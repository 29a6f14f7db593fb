"""The file of `atoll up`: a job, its coordinator's place, and the hosts of its islands.

[job]
name = "run7"
script = "train.py"            # there on every host, under its dir
[coordinator]                  # left out: on this machine
ssh = "me@coord.example"
[hosts.palm]                   # the island's name
ssh = "me@palm.example"
"""

from __future__ import annotations

import shlex
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from atoll.config import TomlTable, load, nearest, parse_address, setting
from atoll.errors import ConfigError
from atoll.trust.names import check_name

LOCAL = "local"
"""In place of a host for ssh: this machine, without ssh."""


def _words(text: str) -> None:
    shlex.split(text)


def _assignments(text: str) -> None:
    for word in shlex.split(text):
        name, equals, _ = word.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"expected NAME=VALUE NAME=VALUE, not {word!r}")


def _is_set(text: str) -> None:
    if not text:
        raise ValueError("must be set")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTable:
    """[job]"""

    name: str = setting("job", "Name of the job.", check=lambda text: check_name("job", text))
    script: str = setting("", "The script, as a path on every host.", check=_is_set)
    args: str = setting("", "Its arguments, as in a shell.", check=_words)
    min_islands: int | None = setting(
        None, "Islands that begin the job; not set: all of them.", minimum=1
    )
    max_restarts: int = setting(3, "Of each island, and of each host.", minimum=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What [coordinator] and [hosts.NAME] have in common: where, and how to get there."""

    ssh: str = setting(LOCAL, "Host as ssh knows it; local: this machine, without ssh.")
    ssh_options: str = setting("", "More words for ssh: -p 2222 -i key.", check=_words)
    dir: str = setting("", "Folder on it; not set: where ssh arrives.")
    python: str | None = setting(
        None, "Python with atoll on it; not set: python3, on this machine its own.", check=_is_set
    )
    env: str = setting("", "NAME=VALUE words for its environment.", check=_assignments)
    address: str | None = setting(
        None, "Name or address under which the others reach it; not set: ssh's host."
    )

    @property
    def is_local(self) -> bool:
        """Whether it needs no ssh."""
        return self.ssh == LOCAL

    @property
    def interpreter(self) -> str:
        """What runs atoll there: on this machine, what runs it already."""
        return self.python or (sys.executable if self.is_local else "python3")

    @property
    def reached_at(self) -> str:
        """Where the others reach it."""
        return self.address or ("127.0.0.1" if self.is_local else self.ssh.rpartition("@")[2])

    @property
    def binds(self) -> str:
        """On what it listens."""
        return "127.0.0.1" if self.reached_at in ("127.0.0.1", "localhost") else "0.0.0.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorTable(Place):
    """[coordinator]"""

    port: int = setting(7000, "Where it listens.", minimum=1, maximum=65535)
    metrics_port: int = setting(
        0, "Of its page and metrics, on its 127.0.0.1; 0: any, -1: none.", minimum=-1, maximum=65535
    )
    listen: str | None = setting(
        None, "HOST:PORT, if not the port on all addresses.", check=parse_address
    )
    store: str | None = setting(
        None, "As of atoll coordinator; not set: SQLite, a new file for each run."
    )

    @property
    def listens(self) -> str:
        """HOST:PORT."""
        return self.listen or f"{self.binds}:{self.port}"

    @property
    def advertises(self) -> str:
        """HOST:PORT, for the islands."""
        host = self.reached_at
        port = parse_address(self.listens)[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTable(Place):
    """[hosts.NAME]"""

    islands: int = setting(1, "Islands on it.", minimum=1, maximum=1024)
    nproc_per_node: int | None = setting(None, "Processes of each.", minimum=1, maximum=256)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpRequest:
    """A whole file."""

    job: JobTable
    coordinator: CoordinatorTable
    hosts: Mapping[str, HostTable] = field(default_factory=dict)

    @property
    def islands(self) -> int:
        """Of all hosts."""
        return sum(host.islands for host in self.hosts.values())


def read(path: Path) -> UpRequest:
    """Read a job's file. Raises ConfigError."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or 'cannot be read'}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    known = ("job", "coordinator", "hosts")
    for key in data:
        if key not in known:
            near = nearest(key, known)
            hint = f", did you mean '{near}'?" if near else "; known are [job], [coordinator]"
            raise ConfigError(f"{path}: unknown table '{key}'{hint}")
    hosts = _table(data, "hosts", path)
    if not hosts:
        raise ConfigError(f"{path}: no hosts; name one: [hosts.palm], with ssh = 'me@palm.example'")
    job = load(JobTable, toml=TomlTable(name=f"{path} [job]", values=_table(data, "job", path)))
    if not job.value.script:
        raise ConfigError(f"{path} [job]: script is not set; it is the Python file to run")
    coordinator = load(
        CoordinatorTable,
        toml=TomlTable(name=f"{path} [coordinator]", values=_table(data, "coordinator", path)),
    )
    return UpRequest(
        job=job.value,
        coordinator=coordinator.value,
        hosts={name: _host(path, name, hosts) for name in hosts},
    )


def _host(path: Path, name: str, hosts: Mapping[str, object]) -> HostTable:
    check_name("island", name)
    table = TomlTable(name=f"{path} [hosts.{name}]", values=_table(hosts, name, path))
    return load(HostTable, toml=table).value


def _table(data: Mapping[str, object], key: str, path: Path) -> Mapping[str, object]:
    value = data.get(key, {})
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: '{key}' must be a table; write it as [{key}]")
    return value

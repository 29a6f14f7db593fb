"""The settings of `atoll run`, from defaults, a TOML file, the environment and the command line.

[run]               # what this module's RunSettings lists
islands = 3
[session]           # what the islands' SessionSettings lists
silence_s = 3.0
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from atoll.config import (
    PREFIX,
    Loaded,
    SessionSettings,
    load,
    parse_address,
    parse_hosts,
    read_toml,
    setting,
    unknown_variables,
    variables,
)
from atoll.errors import ConfigError
from atoll.trust.exposure import is_loopback

TOKEN_VARIABLE = "ATOLL_TOKEN"
"""What --token is in the environment, where no list of processes shows it."""
# The launcher decides these for every island.
SET_BY_LAUNCHER = frozenset(
    {"coordinator", "job", "island", "shard", "shards", "metrics_port", "log_dir", "restart"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """Options of `atoll run` that may also stand in a file or in the environment."""

    islands: int = setting(1, "Islands to start on this machine.", minimum=1, maximum=1024)
    nproc_per_node: int | None = setting(
        None,
        "Processes of each island, started and ended together; RANK, WORLD_SIZE, MASTER_ADDR and "
        "so on are for a process group within the island, as torchrun sets them; not set: one.",
        minimum=1,
        maximum=256,
    )
    min_islands: int | None = setting(
        None,
        "Islands that the job cannot go on without; not set: it starts with all of them, and goes "
        "on with one.",
        minimum=1,
    )
    job: str | None = setting(None, "Name of the job; not set: the script's, or the joined job's.")
    listen: str = setting(
        "127.0.0.1:0", "HOST:PORT of the embedded coordinator; port 0: any.", check=parse_address
    )
    max_restarts: int = setting(
        3, "Restarts of each island within ten minutes; 0: none.", minimum=0
    )
    log_dir: Path | None = setting(  # noqa: RUF009 - not mutable
        None, "Folder of the islands' logs; not set: .atoll/<job>-<time>/."
    )
    quiet: bool = setting(False, "Do not show what the islands print; their logs have it.")
    plain: bool = setting(False, "Plain lines, also on a terminal.")
    metrics_port: int = setting(
        0,
        "Port of the coordinator's metrics, the islands' are the next ones; 0: any; -1: none.",
        minimum=-1,
        maximum=65535,
    )
    threads: int | None = setting(
        None,
        "OMP_NUM_THREADS of each process; not set: the cores divided by the processes.",
        minimum=1,
    )
    store: str = setting(
        "memory",
        "Where the coordinator keeps its state: memory, sqlite:PATH (or PATH), or "
        "etcd://HOST:PORT[,HOST:PORT]/PREFIX.",
    )
    authority: Path | None = setting(  # noqa: RUF009 - not mutable
        None,
        "Folder of the job's authority (atoll certs init): the coordinator and all links ask for "
        "certificates, and joiners get theirs for tokens.",
    )
    insecure: bool = setting(
        False, "Listen beyond this machine without certificates, on a network that you trust."
    )
    events: Path | None = setting(  # noqa: RUF009 - not mutable
        None, "File for what happens, one JSON object a line."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AllSettings:
    """What `atoll run` goes by. `warnings` are for the user to read."""

    run: Loaded[RunSettings]
    session: Loaded[SessionSettings]
    session_variables: Mapping[str, str]
    """What the file says about the islands' sessions, as environment variables."""
    warnings: tuple[str, ...]


def option_name(key: str) -> str:
    """Return what a setting is called on the command line."""
    return "--" + key.replace("_", "-")


def load_settings(
    config: Path | None, env: Mapping[str, str], options: Mapping[str, object]
) -> AllSettings:
    """Read all settings; `options` are those given on the command line. Raises ConfigError."""
    tables = read_toml(config, ["run", "session"]) if config else {}
    session_table = tables.get("session")
    for key in session_table.values if session_table else ():
        if key in SET_BY_LAUNCHER:
            raise ConfigError(
                f"{config} [session]: '{key}' is set by the launcher for each island; remove it"
            )
    run = load(
        RunSettings, toml=tables.get("run"), env=env, overrides=options, override_name=option_name
    )
    session = load(SessionSettings, toml=session_table, env=env)
    from_file = {} if session_table is None else session_table.values
    known = [*variables(RunSettings), *variables(SessionSettings), TOKEN_VARIABLE]
    return AllSettings(
        run=run,
        session=session,
        session_variables={
            PREFIX + key.upper(): str(value)
            for key, value in from_file.items()
            if not env.get(PREFIX + key.upper())
        },
        warnings=tuple(unknown_variables(env, known)),
    )


def reached_at(advertise: str, bind_host: str) -> dict[str, str]:
    """What --advertise means to the islands, as environment variables. `bind_host`: on what they
    would listen without it. Raises ConfigError."""
    try:
        hosts = parse_hosts(advertise)
    except ValueError as error:
        raise ConfigError(f"--advertise {advertise!r}: {error}") from None
    found = {"ATOLL_ADVERTISE_HOST": advertise}
    if is_loopback(bind_host) and not all(is_loopback(host) for host in hosts):
        found["ATOLL_BIND_HOST"] = "::" if any(":" in host for host in hosts) else "0.0.0.0"
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class IslandPlan:
    """What one island is started with, apart from the attempt number."""

    name: str
    coordinator: str
    job: str
    metrics_port: int
    log_dir: Path
    threads: int
    shards: int | None = None
    """Processes; None: one that is told of no others."""

    @property
    def count(self) -> int:
        """Its processes."""
        return self.shards or 1

    def label(self, shard: int) -> str:
        """What a process's lines and its log are called by."""
        return self.name if self.count == 1 else f"{self.name}.{shard}"


def island_environment(
    plan: IslandPlan,
    attempt: int,
    env: Mapping[str, str],
    session_variables: Mapping[str, str],
    *,
    shard: int = 0,
    master_port: int = 0,
) -> dict[str, str]:
    """Return the environment of one process of an island, made from the launcher's own.

    The launcher's settings stay with it: an island must not warn of variables that it cannot know.
    master_port: where the island's process group meets.
    """
    mine = set(variables(RunSettings)) - set(variables(SessionSettings))
    kept = {
        name: value
        for name, value in env.items()
        if name not in mine and name not in ("GRPC_ENABLE_FORK_SUPPORT", TOKEN_VARIABLE)
    }
    return {
        **session_variables,
        **kept,
        "ATOLL_COORDINATOR": plan.coordinator,
        "ATOLL_JOB": plan.job,
        "ATOLL_ISLAND": plan.name,
        "ATOLL_METRICS_PORT": str(plan.metrics_port + (shard if plan.metrics_port > 0 else 0)),
        "ATOLL_LOG_DIR": str(plan.log_dir),
        "ATOLL_RESTART": str(attempt),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(plan.threads),
        **_group_variables(plan, shard, master_port),
    }


def _group_variables(plan: IslandPlan, shard: int, master_port: int) -> dict[str, str]:
    """What torch.distributed.init_process_group reads, for the processes of one island."""
    shards = {"ATOLL_SHARD": str(shard), "ATOLL_SHARDS": str(plan.shards)} if plan.shards else {}
    return {
        **shards,
        "RANK": str(shard),
        "LOCAL_RANK": str(shard),
        "WORLD_SIZE": str(plan.count),
        "LOCAL_WORLD_SIZE": str(plan.count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(master_port),
    }

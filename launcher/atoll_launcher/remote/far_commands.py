"""The commands of `atoll up`, as lists of words: pure functions of the job's file.

Everything that runs on a host runs under `atoll_launcher.remote.tied`, which ends it when the
connection does. Its environment, with the token, comes over standard input and stands in no list of
processes.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atoll_launcher.remote.request import LOCAL, CoordinatorTable, HostTable, Place, UpRequest

SSH = (
    "ssh",
    "-o", "BatchMode=yes",  # nobody is there to type a password
    "-o", "ConnectTimeout=10",
    "-o", "ServerAliveInterval=15",
    "-o", "ServerAliveCountMax=3",
)  # fmt: skip
CHECK = "import atoll, atoll_launcher; print('atoll', atoll.__version__)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to start here, and the environment that what it starts there is to get."""

    words: tuple[str, ...]
    env: Mapping[str, str]


def on(place: Place, words: Sequence[str]) -> tuple[str, ...]:
    """Return the command that runs `words` on a place, in its folder."""
    script = f"exec {shlex.join(words)}"
    if place.dir:
        script = f"cd {_folder(place.dir)} && {script}"
    if place.is_local:
        return ("sh", "-c", script)
    return (*SSH, *shlex.split(place.ssh_options), place.ssh, script)


def ssh_try(place: Place) -> str:
    """Return what to type to see why a host cannot be reached."""
    return shlex.join(["ssh", *shlex.split(place.ssh_options), place.ssh, "true"])


def check(place: Place, script: str) -> tuple[str, ...]:
    """Return the command that tells whether a host has what it needs."""
    looks = f"import os.path, sys; {CHECK}; sys.exit(0 if os.path.isfile({script!r}) else 7)"
    return on(place, [place.interpreter, "-c", looks if script else CHECK])


def coordinator(request: UpRequest, store: str, certs: str) -> Command:
    """Return the coordinator's command; `store`, a file, and `certs` are on its host."""
    place: CoordinatorTable = request.coordinator
    words = [
        place.interpreter, "-m", "atoll_launcher.remote.tied",
        "coordinator",
        "--listen", place.listens,
        "--advertise", place.advertises,
        "--job", request.job.name,
        "--min-islands", str(request.job.min_islands or request.islands),
        "--store", place.store or f"sqlite:{store}",
        "--tls", f"{certs}/coordinator",
        "--authority", certs,
        *([] if place.metrics_port < 0 else ["--metrics-port", str(place.metrics_port)]),
    ]  # fmt: skip
    return Command(words=on(place, words), env=_environment(place))


def send_folder(place: Place, folder: str) -> tuple[str, ...]:
    """Return the command that unpacks a tar from standard input into a folder of a host."""
    where = _folder(folder)
    script = f"umask 077 && mkdir -p {where} && tar -x -C {where}"
    if place.dir:
        script = f"cd {_folder(place.dir)} && {script}"
    if place.ssh == LOCAL:
        return ("sh", "-c", script)
    return (*SSH, *shlex.split(place.ssh_options), place.ssh, script)


def launcher(request: UpRequest, name: str, token: str, fingerprint: str) -> Command:
    """Return the command of a host's launcher. `fingerprint`: of the authority, which the folder of
    the host's certificate is called by, so that one of an older authority is not taken."""
    host: HostTable = request.hosts[name]
    job = request.job
    shards = [] if host.nproc_per_node is None else ["--nproc-per-node", str(host.nproc_per_node)]
    words = [
        host.interpreter, "-m", "atoll_launcher.remote.tied",
        "run",
        "--join", request.coordinator.advertises,
        "--islands", str(host.islands),
        *shards,
        "--max-restarts", str(job.max_restarts),
        "--plain",
        job.script, *shlex.split(job.args),
    ]  # fmt: skip
    env = {
        "ATOLL_TOKEN": token,
        "ATOLL_TLS_DIR": identity_folder(name, fingerprint),
        "ATOLL_BIND_HOST": host.binds,
        "ATOLL_ADVERTISE_HOST": host.reached_at,
        **_environment(host),
    }
    return Command(words=on(host, words), env=env)


def identity_folder(name: str, fingerprint: str) -> str:
    """Return where a host keeps its key and certificate, under its folder."""
    return f".atoll/identity-{name}-{fingerprint[:12]}"


def islands_of(name: str, host: HostTable) -> tuple[str, ...]:
    """Return the names of a host's islands."""
    return (name,) if host.islands == 1 else tuple(f"{name}-{n}" for n in range(host.islands))


def _environment(place: Place) -> dict[str, str]:
    pairs = (word.partition("=") for word in shlex.split(place.env))
    return {name: value for name, _, value in pairs}


def _folder(path: str) -> str:
    """Quoted, but for the tilde, which the shell over there is to read."""
    if path == "~" or path.startswith("~/"):
        return "~" + (shlex.quote(path[1:]) if path[1:] else "")
    return shlex.quote(path)

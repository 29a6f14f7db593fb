"""What can be known to be wrong before anything is started. One line each, saying what to do."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from atoll_launcher.exit_codes import LauncherError


def check_script(script: str) -> None:
    """Raise LauncherError unless `script` is a file that can be read."""
    path = Path(script)
    if not path.exists():
        raise LauncherError(f"script not found: {script}; check the path (this is {Path.cwd()})")
    if path.is_dir():
        raise LauncherError(f"script is a folder: {script}; name the Python file in it")
    if not os.access(path, os.R_OK):
        raise LauncherError(f"script cannot be read: {script}; check its permissions")


def check_environment(env: Mapping[str, str]) -> None:
    """Raise LauncherError for a variable under which islands would hang."""
    value = env.get("GRPC_ENABLE_FORK_SUPPORT", "")
    if value.lower() in {"1", "true", "yes", "on"}:
        raise LauncherError(
            "GRPC_ENABLE_FORK_SUPPORT=1 makes data loading processes hang; "
            "unset it (unset GRPC_ENABLE_FORK_SUPPORT)"
        )


def check_port(host: str, port: int, option: str) -> None:
    """Raise LauncherError when the address cannot be listened on; port 0 is any free port."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # As servers do: connections that linger from an earlier run are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LauncherError(
            f"cannot listen on {host}:{port}: {reason.lower()}; choose another address with "
            f"{option}, or port 0 for any free port"
        ) from error


def free_port() -> int:
    """Return a port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def job_name(script: str) -> str:
    """Return the name of a job that was given none: its script's."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(script).stem).strip("-.") or "job"


def make_log_dir(chosen: Path | None, job: str) -> Path:
    """Make the folder for the islands' logs and return its absolute path."""
    try:
        if chosen is not None:
            chosen.mkdir(parents=True, exist_ok=True)
            return chosen.resolve()
        base = Path(".atoll")
        base.mkdir(exist_ok=True)
        # Logs are nobody's source code.
        (base / ".gitignore").write_text("*\n")
        stem = f"{job}-{time.strftime('%Y%m%d-%H%M%S')}"
        for number in range(1, 1000):
            folder = base / (stem if number == 1 else f"{stem}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder.resolve()
        raise FileExistsError(0, "too many runs in one second")
    except OSError as error:
        raise LauncherError(
            f"cannot write logs to {chosen or Path('.atoll').resolve()}: {error.strerror}; "
            "choose another folder with --log-dir"
        ) from error

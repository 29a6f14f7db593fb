"""Before `atoll up` starts anything: are the hosts there, and who belongs to the job?"""

from __future__ import annotations

import asyncio
import io
import tarfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import atoll
from atoll.trust.authority import Authority, fingerprint
from atoll_launcher import exit_codes
from atoll_launcher.exit_codes import LauncherError
from atoll_launcher.remote import far_commands as up_commands
from atoll_launcher.remote.request import CoordinatorTable, Place, UpRequest
from atoll_launcher.trust.certs import make_authority, make_token

CHECK_S = 60.0
DAYS = 365.0
NO_SCRIPT, NO_REACH = 7, 255
SENT = ("ca.pem", "ca.key", "coordinator")
"""Of the authority's folder, what the coordinator's machine gets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """The job's authority, on this machine; `far_folder`: on the coordinator's."""

    folder: Path
    far_folder: str
    fingerprint: str

    def token(self, address: str, island: str) -> str:
        """A join token: good once, for a while."""
        return make_token(self.folder, address, island, "15m")


def authority_here(request: UpRequest) -> Trust:
    """The authority of the job of this name in this folder, made if there is none. Raises
    ConfigError."""
    name = request.job.name
    plain = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
    folder = Path(".atoll") / f"up-{plain}" / "certs"
    if not (folder / "ca.key").exists():
        make_authority(name, folder, days=DAYS)
    authority = Authority.load(folder)
    if authority.job != name:
        raise LauncherError(f"{folder} is the authority of job '{authority.job}'; move it away")
    if authority.certificate.not_valid_after_utc <= datetime.now(UTC):
        raise LauncherError(f"the authority in {folder} has expired; move the folder away")
    return Trust(
        folder=folder.resolve(),
        far_folder=f".atoll/up-{plain}/certs",
        fingerprint=fingerprint(authority.certificate),
    )


async def check_hosts(request: UpRequest) -> None:
    """Raises LauncherError that names every host that lacks something, and what to do."""
    script = request.job.script
    wanted: list[tuple[str, Place, str]] = [("coordinator", request.coordinator, "")]
    wanted += [(name, host, script) for name, host in request.hosts.items()]
    found = await asyncio.gather(*(_problem(*one) for one in wanted))
    problems = [problem for problem in found if problem]
    if problems:
        raise LauncherError("; ".join(problems), exit_codes.CANNOT_JOIN)


async def _problem(name: str, place: Place, script: str) -> str:
    code, said = await _run(up_commands.check(place, script), b"")
    lines = [line for line in said.splitlines() if line.strip()] or ["it said nothing"]
    if code == NO_REACH and not place.is_local:
        return (
            f"{name}: {place.ssh} cannot be reached by ssh ({lines[-1].strip()}); this must work "
            f"without a password: {up_commands.ssh_try(place)}"
        )
    if code == NO_SCRIPT:
        where = place.dir or "the folder where ssh arrives"
        return f"{name}: no script {script} in {where}; copy it there, or set dir"
    if code:
        table = "coordinator" if isinstance(place, CoordinatorTable) else f"hosts.{name}"
        return (
            f"{name}: {place.interpreter} has no atoll ({lines[-1].strip()}); install it there, or "
            f"name the right interpreter: [{table}] python = ..."
        )
    here = f"atoll {atoll.__version__}"
    if here not in lines:
        return f"{name}: has {lines[-1].strip()}, this machine {here}; install the same release"
    return ""


async def send_authority(request: UpRequest, trust: Trust) -> None:
    """The coordinator signs joiners' certificates: its machine gets the authority. Raises
    LauncherError."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for part in SENT:
            tar.add(trust.folder / part, arcname=part)
    words = up_commands.send_folder(request.coordinator, trust.far_folder)
    code, said = await _run(words, data.getvalue())
    if code:
        raise LauncherError(
            f"coordinator: the authority could not be copied to {request.coordinator.ssh}: "
            f"{said.strip() or code}",
            exit_codes.CANNOT_JOIN,
        )


async def _run(words: tuple[str, ...], data: bytes) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(data), CHECK_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        return NO_REACH, f"no answer within {CHECK_S:.0f} s"
    return process.returncode or 0, said.decode("utf-8", errors="replace")

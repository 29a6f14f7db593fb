"""A real sshd on loopback, with keys of its own in a folder of its own."""

from __future__ import annotations

import getpass
import os
import select
import shutil
import subprocess
from pathlib import Path

from ports import free_port

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class Sshd:
    """Lets in whoever has the key in its folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.user_key = folder / "user"
        for name in ("host", "user"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)],
                check=True,
            )
        self.port = free_port()
        config = folder / "sshd_config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\n"
            f"AuthorizedKeysFile {folder}/user.pub\nStrictModes no\nUsePAM no\nPidFile none\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "PermitRootLogin prohibit-password\nLogLevel VERBOSE\n"
        )
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        assert SSHD is not None
        self.process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(config)], stderr=subprocess.PIPE
        )
        self._wait()

    def _wait(self) -> None:
        assert self.process.stderr is not None
        said = b""
        while b"Server listening" not in said:
            ready, _, _ = select.select([self.process.stderr], [], [], 20)
            piece = os.read(self.process.stderr.fileno(), 4096) if ready else b""
            assert piece, said.decode()
            said += piece

    @property
    def options(self) -> str:
        """For ssh."""
        return (
            f"-p {self.port} -i {self.user_key} -o IdentitiesOnly=yes -o LogLevel=ERROR "
            "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        )

    @property
    def host(self) -> str:
        """For ssh."""
        return f"{getpass.getuser()}@127.0.0.1"

    def close(self) -> None:
        """No new connections; those that are there go on."""
        self.process.terminate()
        self.process.communicate()

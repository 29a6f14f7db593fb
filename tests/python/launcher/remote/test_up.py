"""`atoll up`: a whole job over a real sshd."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.errors import ConfigError
from atoll.trust.authority import CLOCK_SKEW, Authority, fingerprint
from atoll.trust.remembered import Remembered
from atoll_launcher.main import main
from atoll_launcher.remote import far_commands as up_commands
from atoll_launcher.remote.request import read
from atoll_launcher.remote.up import how_they_left
from atoll_launcher.trust.certs import issue_island, make_authority
from far_hosts import SSHD, Sshd
from launched import DEADLINE_S, Launch, Launcher, processes_with
from ports import free_port

WORKER = Path(__file__).parents[2] / "processes" / "worker.py"
ENDLESS = "--elements=64 --samples=1000000 --batch-size=1 --step-s=0.02"

FILE = """
[job]
name = "lagoon"
script = "train.py"
args = "--epochs 2"
[coordinator]
ssh = "me@coord.example"
[hosts.palm]
ssh = "me@palm.example"
dir = "~/run here"
islands = 2
env = "A=1 B='x y'"
[hosts.reef]
address = "192.0.2.7"
ssh = "reef"
ssh_options = "-p 2222"
python = "/opt/venv/bin/python"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "job.toml"
    path.write_text(text)
    return path


def test_a_host_is_not_missed_when_an_operator_wanted_all_its_islands_gone() -> None:
    islands = ("palm-0", "palm-1")
    assert how_they_left({"palm-0": "it was killed"}, islands) == ""
    left = {"palm-0": "it was killed", "palm-1": "it was killed", "reef": "it was drained"}
    assert how_they_left(left, islands) == "it was killed"
    left["palm-1"] = "it was drained"
    assert how_they_left(left, islands) == "it was killed and it was drained"


# --- the file and the commands --------------------------------------------------------------------


def test_commands_are_functions_of_the_file(tmp_path: Path) -> None:
    request = read(written(tmp_path, FILE))
    assert (request.islands, request.coordinator.advertises) == (3, "coord.example:7000")
    palm = up_commands.launcher(request, "palm", "SECRET", "abcdef0123456789")
    assert palm.words[0] == "ssh"
    assert palm.words[-2:] == (
        "me@palm.example",
        "cd ~'/run here' && exec python3 -m atoll_launcher.remote.tied run "
        "--join coord.example:7000 --islands 2 --max-restarts 3 --plain train.py --epochs 2",
    )
    assert "SECRET" not in " ".join(palm.words)
    assert palm.env == {
        "ATOLL_TOKEN": "SECRET",
        "ATOLL_TLS_DIR": ".atoll/identity-palm-abcdef012345",
        "ATOLL_BIND_HOST": "0.0.0.0",
        "ATOLL_ADVERTISE_HOST": "palm.example",
        "A": "1",
        "B": "x y",
    }
    reef = up_commands.launcher(request, "reef", "SECRET", "abcdef0123456789")
    assert reef.words[-4:-1] == ("-p", "2222", "reef")
    assert reef.env["ATOLL_ADVERTISE_HOST"] == "192.0.2.7"
    coordinator = up_commands.coordinator(request, "state", "certs")
    assert coordinator.words[-1].startswith(
        "exec python3 -m atoll_launcher.remote.tied coordinator "
    )
    assert coordinator.words[-1].endswith(" --metrics-port 0")
    assert up_commands.ssh_try(request.hosts["reef"]) == "ssh -p 2222 reef true"
    assert up_commands.islands_of("palm", request.hosts["palm"]) == ("palm-0", "palm-1")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[job]\nscript = 'x'\n", "no hosts"),
        ("[job]\n[hosts.a]\n", "script"),
        ("[jobs]\n", "unknown table 'jobs', did you mean 'job'?"),
        ("[job]\nscript = 'x'\n[hosts.a]\nshs = 'h'\n", "unknown key 'shs', did you mean 'ssh'?"),
        ("[job]\nscript = 'x'\n[hosts]\na = 1\n", "'a' must be a table"),
        ("[job]\nscript = 'x'\n[hosts.a]\nenv = 'x'\n", "expected NAME=VALUE"),
        ("[job\n", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_the_place(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=r"job\.toml") as error:
        read(written(tmp_path, text))
    assert complaint in str(error.value)


def test_a_place_on_this_machine_has_the_interpreter_that_runs_already(tmp_path: Path) -> None:
    text = "[job]\nscript = 'x'\n[coordinator]\nmetrics_port = -1\n[hosts.a]\npython = 'py'\n"
    request = read(written(tmp_path, text))
    command = up_commands.coordinator(request, "state", "certs").words[-1]
    assert command.startswith(f"exec {sys.executable} -m ")
    assert "--metrics-port" not in command
    assert up_commands.launcher(request, "a", "T", "f").words[-1].startswith("exec py -m ")


def test_a_dry_run_prints_the_commands_and_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["up", "--dry-run", str(written(tmp_path, FILE))]) == 0
    out = capsys.readouterr().out
    for part in ("atoll certs init --job lagoon", "tied coordinator", "tied run --join"):
        assert part in out
    # Not the operator's certificate, and no store of another run.
    assert "tar -c -C .atoll/up-lagoon/certs ca.pem ca.key coordinator | ssh " in out
    assert "--store sqlite:.atoll/up-lagoon/job-TIME.db " in out
    assert out.count("atoll token ") == 2
    assert not (tmp_path / ".atoll").exists()


# --- over ssh -------------------------------------------------------------------------------------


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    if SSHD is None:
        pytest.skip("needs sshd (Debian: openssh-server)")
    running = Sshd(tmp_path / "ssh")
    yield running
    running.close()


def job_file(folder: Path, sshd: Sshd, args: str, *, script: Path = WORKER, rest: str = "") -> Path:
    """A coordinator and two hosts that are this machine, each reached through the sshd."""
    port = free_port()
    there = f'ssh = "{sshd.host}"\nssh_options = "{sshd.options}"\npython = "{sys.executable}"\n'
    text = f'[job]\nname = "lagoon"\nscript = "{script}"\nargs = "{args}"\n{rest}\n'
    for table in ("coordinator", "hosts.palm", "hosts.reef"):
        place = folder / table.rpartition(".")[2]
        place.mkdir()
        text += f'[{table}]\n{there}dir = "{place}"\nenv = "OMP_NUM_THREADS=1"\n'
        text += f"port = {port}\n" if table == "coordinator" else ""
    return written(folder, text)


def connections(dir: Path) -> list[int]:
    """The ssh clients whose command runs a launcher in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0] == b"ssh" and f"cd {dir} ".encode() in b" ".join(words):
                found.append(int(entry.name))
    return found


@pytest.mark.processes
def test_a_whole_job_over_ssh(launch: Launch, sshd: Sshd, tmp_path: Path) -> None:
    job = launch("up", str(job_file(tmp_path, sshd, ENDLESS)))
    address = job.wait_for("listening")["address"]
    page = job.wait_for("note")["message"]
    assert page.startswith("page and metrics: http://127.0.0.1:"), page
    job.wait_for("round", islands=2)
    # Each host made a key of its own, and the authority's is where the coordinator is alone.
    for name in ("palm", "reef"):
        (identity,) = (tmp_path / name / ".atoll").glob(f"identity-{name}-*")
        assert (identity / "key.pem").exists()
        assert not list((tmp_path / name).rglob("ca.key"))
    command = [sys.executable, "-m", "atoll_launcher"]
    # In this folder the job is known, with the operator's certificate.
    shown = subprocess.run(
        [*command, "status", "--json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert {peer["island"] for peer in json.loads(shown.stdout)["peers"]} == {"palm", "reef"}
    stranger = subprocess.run(
        [*command, "status", address],
        cwd=tmp_path / "ssh", capture_output=True, text=True, timeout=DEADLINE_S,
    )  # fmt: skip
    assert stranger.returncode == 3

    # Whom to put out for good is said without a word about where.
    void = subprocess.run(
        [*command, "revoke", "atoll"],
        cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S,
    )  # fmt: skip
    assert (void.returncode, void.stderr) == (0, "")
    assert "no island had one in use" in void.stdout

    # A connection that is cut: the island ends with it, and comes back.
    (pid,) = connections(tmp_path / "palm")
    os.kill(pid, signal.SIGKILL)
    assert job.wait_for("restarting", island="palm")["attempt"] == 1
    job.wait_for("joined", island="palm")

    job.process.send_signal(signal.SIGINT)
    code, out, _ = job.end()
    assert code == 130, out
    assert connections(tmp_path) == []
    assert processes_with("ATOLL_COORDINATOR", address) == []


@pytest.mark.processes
def test_a_job_over_ssh_ends_by_itself(launch: Launch, sshd: Sshd, tmp_path: Path) -> None:
    fragile = tmp_path / "train.py"
    fragile.write_text(
        "import os, runpy, signal, sys\n"
        "if os.environ['ATOLL_ISLAND'] == 'palm' and os.environ['ATOLL_RESTART'] == '0':\n"
        "    print('the first time it dies', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"runpy.run_path({str(WORKER)!r}, run_name='__main__')\n"
    )
    args = "--elements=64 --samples=160 --batch-size=4 --step-s=0.01"
    path = job_file(tmp_path, sshd, args, script=fragile)
    job = launch("up", str(path))
    job.wait_for("joined", island="palm")
    job.wait_for("finished")
    code, out, err = job.end()
    assert (code, err) == (0, ""), out
    assert "palm: palm starts again in 1 s (restart 1)" in out
    assert "palm | the first time it dies" in out
    assert "finished: 2 of 2 islands finished" in out

    # The same command again is another job, and none that is over already.
    (tmp_path / "again").mkdir()
    code, out, err = launch("up", str(path), folder=tmp_path / "again").end()
    assert (code, err) == (0, ""), out
    assert "view 1: " in out
    assert "finished: 2 of 2 islands finished" in out


def await_all(job: Launcher) -> None:
    """Until the scripts of both hosts have said that they wait."""
    assert job.process.stdout is not None
    waiting = set()
    for line in job.process.stdout:
        if line.endswith(" | waits\n"):
            waiting.add(line.split()[0])
        if len(waiting) == 2:
            return


@pytest.mark.processes
def test_sigterm_has_all_hosts_leave_politely(launch: Launch, sshd: Sshd, tmp_path: Path) -> None:
    polite = tmp_path / "train.py"
    polite.write_text(
        "import signal, sys\n"
        "def leave(number, frame):\n"
        "    print('leaves', flush=True)\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, leave)\n"
        "print('waits', flush=True)\n"
        "while True:\n"
        "    signal.pause()\n"
    )
    job = launch("up", str(job_file(tmp_path, sshd, "", script=polite)))
    await_all(job)
    job.process.send_signal(signal.SIGTERM)
    code, out, err = job.end()
    assert (code, err) == (0, ""), out
    assert "palm | leaves" in out
    assert "reef | leaves" in out
    assert connections(tmp_path) == []


@pytest.mark.processes
def test_who_does_not_leave_in_time_is_named(launch: Launch, sshd: Sshd, tmp_path: Path) -> None:
    deaf = tmp_path / "train.py"
    deaf.write_text(
        "import os, signal\n"
        "if os.environ['ATOLL_ISLAND'] == 'palm':\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('waits', flush=True)\n"
        "while True:\n"
        "    signal.pause()\n"
    )
    path = job_file(tmp_path, sshd, "", script=deaf)
    path.write_text(path.read_text().replace("THREADS=1", "THREADS=1 ATOLL_LEAVE_S=1"))
    job = launch("up", str(path))
    await_all(job)
    job.process.send_signal(signal.SIGTERM)
    code, _, err = job.end()
    assert code == 143
    assert "islands on palm were not gone in time and were killed" in err
    assert connections(tmp_path) == []


@pytest.mark.processes
def test_a_job_that_can_never_begin_ends(launch: Launch, sshd: Sshd, tmp_path: Path) -> None:
    broken = tmp_path / "train.py"
    broken.write_text(
        "import os, signal\n"
        "if os.environ['ATOLL_ISLAND'] == 'palm':\n"
        "    raise RuntimeError('it cannot work here')\n"
        "signal.pause()\n"
    )
    code, out, err = launch("up", str(job_file(tmp_path, sshd, "", script=broken))).end()
    assert code == 4, out
    assert "RuntimeError: it cannot work here" in out
    assert "the job needs 2" in err


@pytest.mark.processes
def test_hosts_that_are_not_ready_are_all_named(launch: Launch, sshd: Sshd, tmp_path: Path) -> None:
    path = job_file(tmp_path, sshd, "", script=Path("train.py"))
    (tmp_path / "reef" / "train.py").write_text("")
    closed = '\n[hosts.atoll]\nssh = "127.0.0.1"\nssh_options = "-p 1"\n'
    path.write_text(path.read_text() + closed)
    code, _, err = launch("up", str(path)).end()
    assert (code, err.count("\n")) == (3, 1)
    assert "palm: no script train.py in " in err
    assert "atoll: 127.0.0.1 cannot be reached by ssh" in err
    assert "ssh -p 1 127.0.0.1 true" in err
    assert "reef:" not in err


@pytest.mark.processes
def test_who_was_revoked_in_an_earlier_run_stays_out(launch: Launch, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("import signal\nsignal.pause()\n")
    certs = tmp_path / ".atoll" / "up-lagoon" / "certs"
    make_authority("lagoon", certs, days=1)
    folder = up_commands.identity_folder("palm", fingerprint(Authority.load(certs).certificate))
    issue_island(certs, "palm", tmp_path / folder, days=1)
    Remembered(certs).revoke("palm", time.time() + CLOCK_SKEW.total_seconds())
    job = f'[job]\nname = "lagoon"\nscript = "{script}"\n[coordinator]\nport = {free_port()}\n'
    path = written(tmp_path, f"{job}[hosts.palm]\n[hosts.reef]\n")
    code, out, err = launch("up", str(path)).end()
    assert code == 4, out
    assert "the certificate of island 'palm' of job 'lagoon' was revoked" in out
    assert f"to let it in again, remove {folder} in its folder there" in out
    assert "palm starts again" not in out
    assert "the job needs 2" in err

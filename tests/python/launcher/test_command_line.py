"""The command line: one clear line for every mistake, before anything is started."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from atoll.pb import control_pb2 as pb
from atoll_launcher.islands.preflight import job_name, make_log_dir
from atoll_launcher.islands.run import joining_names
from atoll_launcher.main import main
from atoll_launcher.settings import load_settings
from fake_coordinator import FakeCoordinator
from ports import free_port


def run_main(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.py").write_text("")
    return "script.py"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--standalone", "--island", "3", "s.py"], "No such option '--island'. (Did you mean"),
        (["--standalone"], "Missing argument 'SCRIPT'"),
        (["script.py"], "give either --standalone"),
        (["--standalone", "--join", "a:1", "script.py"], "give either --standalone"),
        (["--join", "nowhere", "script.py"], "--join nowhere: expected HOST:PORT"),
        (["--join", "a:1", "--store", "x", "script.py"], "--store is for the coordinator"),
        (["--standalone", "none.py"], "script not found: none.py; check the path"),
        (["--standalone", "folder"], "script is a folder: folder"),
        (["--standalone", "--islands", "0", "script.py"], "islands = 0 (from --islands): must be"),
        (["--standalone", "--islands", "many", "script.py"], "'many' is not a valid integer"),
        (["--standalone", "--listen", "7000", "script.py"], "listen = '7000' (from --listen)"),
        (["--standalone", "--config", "no.toml", "script.py"], "no.toml: No such file"),
        (["--standalone", "--config", "bad.toml", "script.py"], "'isles', did you mean 'islands'?"),
        (["--standalone", "--config", "own.toml", "script.py"], "'job' is set by the launcher"),
        (["--standalone", "--metrics-port", "65535", "script.py"], "leaves no room for 2 ports"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    script: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "bad.toml").write_text("[run]\nisles = 3\n")
    (tmp_path / "own.toml").write_text("[session]\njob = 'x'\n")
    code, out, err = run_main(capsys, "run", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("atoll: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / ".atoll").exists()


def test_an_unknown_command_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _, err = run_main(capsys, "statsu")
    assert (code, err.count("\n")) == (2, 1)
    assert "status" in err


@pytest.mark.parametrize("option", ["--listen", "--metrics-port"])
def test_a_port_in_use_is_known_before_the_start(
    option: str, script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        value = f"127.0.0.1:{port}" if option == "--listen" else str(port)
        code, _, err = run_main(capsys, "run", "--standalone", option, value, script)
    assert code == 2
    assert f"cannot listen on 127.0.0.1:{port}: address already in use" in err
    assert option in err


def test_fork_support_of_grpc_is_refused(
    script: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRPC_ENABLE_FORK_SUPPORT", "1")
    code, _, err = run_main(capsys, "run", "--standalone", script)
    assert code == 2
    assert "unset GRPC_ENABLE_FORK_SUPPORT" in err


@pytest.mark.parametrize("command", [["status"], ["run", "--join"]])
def test_a_coordinator_that_is_not_there(
    command: list[str], script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"127.0.0.1:{free_port()}"
    rest = [script] if "run" in command else []
    code, _, err = run_main(capsys, *command, address, *rest)
    assert code == 3
    *findings, last = err.splitlines()
    assert last.startswith(f"atoll: no coordinator at {address}: check the address")
    assert len(findings) == (2 if "run" in command else 0)  # of the doctor, and what to do


def test_a_server_that_is_no_coordinator(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code, _, err = run_main(capsys, "status", f"127.0.0.1:{silent.getsockname()[1]}")
    assert code == 3
    assert err.count("\n") == 1


def test_another_job_is_not_joined(
    script: str, coordinator: FakeCoordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run_main(capsys, "run", "--join", coordinator.address, "--job", "reef", script)
    assert code == 3
    assert "runs job 'lagoon', not 'reef'" in err


def test_status_as_table_and_as_json(
    coordinator: FakeCoordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    peer = pb.PeerStatus(
        info=pb.PeerInfo(id=b"\1" * 16, island="island-0", order=1),
        state="member",
        heard_ago_s=0.2,
        report=pb.Report(round=7, loss=2.5, tokens_per_s=9100, phase="training"),
    )
    coordinator.status.MergeFrom(
        pb.StatusReply(epoch=2, round=7, loss=float("nan"), members=[b"\1" * 16], peers=[peer])
    )
    code, out, err = run_main(capsys, "status", coordinator.address)
    assert (code, err) == (0, "")
    assert "job lagoon" in out
    assert "island-0     0  training      7  2.500      9.1k" in out

    code, out, _ = run_main(capsys, "status", coordinator.address, "--json")
    status = json.loads(out)
    assert (code, status["epoch"], status["loss"]) == (0, 2, None)
    assert status["peers"][0]["report"]["round"] == 7


def test_status_shows_an_island_of_several_shards_once(
    coordinator: FakeCoordinator, capsys: pytest.CaptureFixture[str]
) -> None:
    def shard(number: int, island: int, state: str) -> pb.PeerStatus:
        ident = bytes([number]) * 16
        info = pb.PeerInfo(id=ident, island=f"island-{island}", order=number, shard=number % 2)
        report = pb.Report(round=7, tokens_per_s=500, phase="training", metrics_port=9000 + number)
        return pb.PeerStatus(info=info, state=state, report=report)

    peers = [shard(0, 0, "member"), shard(1, 0, "member"), shard(2, 1, "registered")]
    members = [peer.info.id for peer in peers[:2]]
    coordinator.status.MergeFrom(
        pb.StatusReply(epoch=2, round=7, shards=2, members=members, peers=peers)
    )
    code, out, err = run_main(capsys, "status", coordinator.address)
    assert (code, err) == (0, "")
    assert "island-0     0  training (2 of 2 shards)        7" in out
    assert ":9000 :9001" in out
    assert "island-1     -  registered (1 of 2 shards)" in out
    _, out, _ = run_main(capsys, "status", coordinator.address, "--json")
    assert json.loads(out)["islands"] == [
        {"island": "island-0", "rank": 0, "shards": {"0": "member", "1": "member"}},
        {"island": "island-1", "rank": None, "shards": {"0": "registered"}},
    ]


def test_config_show_prints_origins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[run]\nislands = 3\n[session]\nsilence_s = 2.5\n")
    monkeypatch.setenv("ATOLL_MAX_RESTARTS", "7")
    monkeypatch.setenv("ATOLL_MAX_RESTART", "8")
    code, out, err = run_main(capsys, "config", "show", "--config", str(file))
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 0
    assert f"islands = 3 # {file} [run]" in lines
    assert "max_restarts = 7 # ATOLL_MAX_RESTARTS" in lines
    assert f"silence_s = 2.5 # {file} [session]" in lines
    assert 'store = "memory" # default' in lines
    assert "ATOLL_MAX_RESTART is not known, did you mean 'ATOLL_MAX_RESTARTS'?" in err


def test_session_settings_of_the_file_reach_the_islands_unless_the_environment_has_them(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[session]\nsilence_s = 2.5\nconnections = 3\n")
    settings = load_settings(file, {"ATOLL_CONNECTIONS": "4"}, {})
    assert settings.session_variables == {"ATOLL_SILENCE_S": "2.5"}
    assert settings.session.value.connections == 4


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_main(capsys, "version")
    assert code == 0
    assert out.startswith("atoll ")


def test_the_command_line_imports_nothing_heavy() -> None:
    code = "import sys, atoll_launcher.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "grpc", "rich", "google.protobuf", "numpy", "asyncio"}
    assert heavy & set(done.stdout.split()) == set()


def status_of(*islands: str, epoch: int = 1, min_islands: int = 3) -> pb.StatusReply:
    peers = [pb.PeerStatus(info=pb.PeerInfo(island=name)) for name in islands]
    return pb.StatusReply(epoch=epoch, min_islands=min_islands, peers=peers)


def test_joining_islands_take_free_names() -> None:
    assert joining_names(status_of("island-0", "island-1"), [], 2) == ["island-3", "island-4"]
    assert joining_names(status_of("island-7", "x", "island-a"), [], 1) == ["island-8"]
    seen = ["island-4"]
    assert joining_names(status_of("island-0", min_islands=1), seen, 1) == ["island-5"]
    first, second = joining_names(status_of(epoch=0), [], 2)
    assert first != second
    assert not first.removeprefix("island-").isdecimal() or len(first) > len("island-999")


def test_job_names_come_from_scripts() -> None:
    assert job_name("examples/train_gpt.py") == "train_gpt"
    assert job_name("my model (2).py") == "my-model-2"
    assert job_name("💧.py") == "job"


def test_log_folders_of_the_same_second_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = {make_log_dir(None, "gpt") for _ in range(3)}
    assert len(folders) == 3
    assert all(folder.parent == tmp_path / ".atoll" for folder in folders)
    assert (tmp_path / ".atoll" / ".gitignore").read_text() == "*\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_script_that_cannot_be_read(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(script).chmod(0)
    code, _, err = run_main(capsys, "run", "--standalone", script)
    assert code == 2
    assert "script cannot be read" in err

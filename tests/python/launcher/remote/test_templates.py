"""The templates under ops/: they parse, have what their systems ask for, and atoll knows them."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import pytest

from atoll.config import SessionSettings, variables
from atoll_launcher.main import cli
from atoll_launcher.settings import TOKEN_VARIABLE, RunSettings

OPS = Path(__file__).parents[4] / "ops"
SLURM, JOBSET, SKYPILOT = OPS / "slurm.sbatch", OPS / "jobset.yaml", OPS / "skypilot.yaml"
yaml = pytest.importorskip("yaml")  # of the test extra


def understood(words: Sequence[str]) -> Mapping[str, Any]:
    """What the command line makes of `atoll ...`, by option. Fails for what it refuses."""
    command: click.Command = cli
    context: click.Context | None = None
    rest = list(words)
    while isinstance(command, click.Group):
        name = rest.pop(0)
        found = command.commands.get(name)
        assert found is not None, f"no command {name}"
        command = found
    context = command.make_context(command.name, rest, resilient_parsing=False)
    return context.params


COMMAND = re.compile(r"(?:^|[\s;(])(atoll (?:run|certs|token|coordinator)\b[^\n;)]*)")
VALUES = {"--join": "host:1", "--nproc-per-node": "2"}


def commands(text: str) -> list[list[str]]:
    """All `atoll ...` of a text, comments included, with values for the shell's variables."""
    plain = re.sub(r"\$(\w+|\{\w+\}|@)", "VALUE", text.replace("\\\n", " ").replace('"', ""))
    found = [shlex.split(one.replace("'", "")) for one in COMMAND.findall(plain)]
    return [
        [
            VALUES.get(before, word) if word == "VALUE" else word
            for before, word in itertools.pairwise(words)
        ]
        for words in found
    ]


@pytest.mark.parametrize("path", [SLURM, SKYPILOT, JOBSET], ids=lambda path: path.name)
def test_every_command_in_a_template_is_understood(path: Path) -> None:
    found = commands(path.read_text())
    assert found
    for words in found:
        understood(words)


@pytest.mark.parametrize("path", [SLURM, SKYPILOT, JOBSET], ids=lambda path: path.name)
def test_every_setting_in_a_template_is_known(path: Path) -> None:
    known = {*variables(RunSettings), *variables(SessionSettings), TOKEN_VARIABLE}
    named = set(re.findall(r"\bATOLL_[A-Z_]+\b", path.read_text()))
    assert named
    assert named <= known


def test_slurm(tmp_path: Path) -> None:
    text = SLURM.read_text()
    subprocess.run(["bash", "-n", str(SLURM)], check=True)
    directives = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2]
        for line in text.splitlines()
        if line.startswith("#SBATCH")
    )
    assert directives["ntasks-per-node"] == "1", "an island is a node"
    name, _, before_s = directives["signal"].partition("@")
    assert name == "TERM"
    leave = re.search(r"ATOLL_LEAVE_S:-(\d+)", text)
    assert leave is not None
    assert int(leave[1]) < int(before_s), "they are to be gone when the time is over"
    # Directives count only before the first command.
    assert text.rindex("#SBATCH") < text.index("set -euo")

    # What runs on a node, with commands in the place of Slurm's and atoll's that tell about it.
    for tool, does in {
        "srun": 'shift; SLURM_NODEID=2 SLURM_JOB_ID=9 exec "$@"',
        "hostname": "echo 10.1.2.3 172.17.0.1",
        "atoll": 'echo "$ATOLL_TLS_DIR $ATOLL_ADVERTISE_HOST $ATOLL_LEAVE_S $@"',
    }.items():
        (tmp_path / tool).write_text(f"#!/bin/bash\n{does}\n")
        (tmp_path / tool).chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "COORDINATOR": "c:7000", "TLS": "/certs"}
    given = ["train.py", "--name", "two words"]
    shown = subprocess.run(
        ["bash", str(SLURM), *given], env=env, check=True, capture_output=True, text=True
    )
    assert shown.stdout.split(" ", 3)[:3] == ["/certs/node-2", "10.1.2.3", "45"]
    assert shown.stdout.endswith("--log-dir logs/9/2 train.py --name two words\n")
    missing = subprocess.run(
        ["bash", str(SLURM), *given], env={"PATH": env["PATH"]}, capture_output=True, text=True
    )
    assert missing.returncode != 0
    assert "HOST:PORT of the coordinator" in missing.stderr


def containers(jobset: Mapping[str, Any]) -> dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """By the replicated job's name: the pod's spec, and its container."""
    found = {}
    for job in jobset["spec"]["replicatedJobs"]:
        pod = job["template"]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        found[job["name"]] = (pod, container)
    return found


def test_jobset() -> None:
    jobset = yaml.safe_load(JOBSET.read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    found = containers(jobset)
    islands = [name for name in found if name != "coordinator"]
    assert jobset["spec"]["successPolicy"]["targetReplicatedJobs"] == islands
    job = jobset["metadata"]["name"]
    for name, (pod, container) in found.items():
        assert pod["restartPolicy"] in ("OnFailure", "Never")
        mounts = {mount["name"] for mount in container["volumeMounts"]}
        assert mounts == {volume["name"] for volume in pod["volumes"]}
        given = understood([*container["command"][1:], *container["args"]])
        if name == "coordinator":
            port = container["ports"][0]["containerPort"]
            assert given["listen"] == f"0.0.0.0:{port}"
            assert given["advertise"] == f"{job}-coordinator-0-0.{job}:{port}"
            assert (given["job"], given["min_islands"]) == (job, len(islands))
            assert given["tls"]
            assert given["authority"]
            advertised = given["advertise"]
        else:
            assert given["join"] == advertised
            env = {one["name"]: one for one in container["env"]}
            assert env["ATOLL_TLS_DIR"]["value"] == "/tls"
            assert int(env["ATOLL_LEAVE_S"]["value"]) < pod["terminationGracePeriodSeconds"]
            secrets = [volume["secret"]["secretName"] for volume in pod["volumes"]]
            assert secrets == [f"{job}-{name}"], "nobody else's key"


def test_skypilot() -> None:
    task = yaml.safe_load(SKYPILOT.read_text())
    assert set(task) <= {"name", "resources", "workdir", "envs", "secrets", "setup", "run"}
    assert task["resources"]["use_spot"] is True
    assert TOKEN_VARIABLE in task["secrets"]
    for part in ("setup", "run"):
        subprocess.run(["bash", "-n"], input=task[part], text=True, check=True)
    assert "ATOLL_LEAVE_S=25" in task["run"]

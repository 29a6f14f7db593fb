"""A real Prometheus that follows a job with churn: targets, every dashboard query, every alert."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import RunningJob, until

from atoll.trust.names import Role
from atoll_launcher.trust.certs import make_authority
from ports import free_port

pytestmark = [
    pytest.mark.processes,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        shutil.which("prometheus") is None or shutil.which("promtool") is None,
        reason="NOT TESTED: metrics need `prometheus`; on Debian: apt-get install prometheus",
    ),
]

OPS = Path(__file__).parents[3] / "ops"
COMPARISON = re.compile(r"(<=|>=|==|!=|<|>)(?= [\d(a-z])")


class Prometheus:
    """With the shipped configuration, but for its addresses and its pace."""

    def __init__(self, folder: Path, coordinator: str) -> None:
        config = (OPS / "prometheus.yml").read_text()
        config = config.replace("127.0.0.1:9400", coordinator)
        config = re.sub(r"(_interval: )15s", r"\g<1>1s", config)
        (folder / "prometheus.yml").write_text(config)
        shutil.copy(OPS / "alerts.yml", folder)
        self._port = free_port()
        self._log = (folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [
                *("prometheus", f"--config.file={folder / 'prometheus.yml'}"),
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
            stdout=self._log,
            stderr=self._log,
        )

    def ask(self, path: str, **arguments: str) -> Any:
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            pytest.fail(f"{arguments}: {json.load(error)['error']}")

    def query(self, expression: str) -> list[Any]:
        result: list[Any] = self.ask("query", query=expression)["result"]
        return result

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=10):
                return True
        except OSError:
            return False

    def islands(self) -> dict[str, str]:
        """The islands that are targets, and how their last scrape went."""
        targets = self.ask("targets", state="active")["activeTargets"]
        return {t["labels"]["island"]: t["health"] for t in targets if "island" in t["labels"]}

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()


@pytest.fixture
def job(tmp_path: Path) -> Iterator[RunningJob]:
    running = RunningJob(tmp_path)
    yield running
    running.close()


@pytest.fixture
def prometheus(job: RunningJob, tmp_path: Path) -> Iterator[Prometheus]:
    """After churn: two islands came, a third joined, one was killed."""
    folder = tmp_path / "prometheus"
    folder.mkdir()
    running = Prometheus(folder, f"127.0.0.1:{job.http}")
    try:
        for name in "abc":
            job.join(name)
        until(running.answers, "Prometheus")
        until(lambda: running.islands() == dict.fromkeys("abc", "up"), "three targets")
        until(
            lambda: len(running.query("atoll_checkpoints_written_total > 0")) > 0,
            "a checkpoint that was scraped",
        )
        job.kill("c")
        until(lambda: running.islands() == dict.fromkeys("ab", "up"), "the dead target to go")
        job.join("d")
        until(lambda: running.islands() == dict.fromkeys("abd", "up"), "the new target")
        until(
            lambda: len(running.query('rate(atoll_compute_seconds_total{island="d"}[10s])')) > 0,
            "the new island's rounds",
        )
        yield running
    finally:
        running.close()


def dashboard_queries() -> list[str]:
    board = json.loads((OPS / "grafana.json").read_text())
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    found += [one["expr"] for one in board["annotations"]["list"]]
    assert len(found) > 40
    return found


def every_query_of_the_dashboard_returns_data(prometheus: Prometheus) -> None:
    empty = []
    for query in dashboard_queries():
        asked = query.replace("$job", "reef").replace("$__rate_interval", "20s")
        if not prometheus.query(f"last_over_time(({asked})[1m:1s])"):
            empty.append(asked)
    assert empty == []


def every_alert_has_what_it_compares(prometheus: Prometheus) -> None:
    """A rule that is silent because its metric does not exist would be silent for ever. With `bool`
    its comparisons answer, whether it fires or not."""
    groups = prometheus.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) >= 15
    assert [rule for rule in rules if rule["health"] != "ok" or rule.get("lastError")] == []
    silent = [
        rule["name"]
        for rule in rules
        if not prometheus.query(COMPARISON.sub(r"\1 bool", rule["query"]))
    ]
    assert silent == []


def the_killed_island_is_an_alert_and_nothing_else_is(prometheus: Prometheus) -> None:
    def firing() -> set[str]:
        alerts = prometheus.ask("alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    until(lambda: "AtollIslandLost" in firing(), "the alert")
    assert firing() == {"AtollIslandLost"}


def labels_are_bounded_by_the_islands(prometheus: Prometheus) -> None:
    """No label holds a peer's id, or anything else that never comes back."""
    series = prometheus.query('{__name__=~"atoll_.*"}')
    values = {
        value
        for one in series
        for name, value in one["metric"].items()
        if name not in ("__name__", "instance", "le")
    }
    assert [value for value in values if re.fullmatch(r"[0-9a-f]{8,}", value)] == []
    peers = {one["metric"]["peer"] for one in series if "peer" in one["metric"]}
    assert peers <= set("abcd")
    assert len(peers) >= 3


def test_a_real_prometheus_follows_a_job(prometheus: Prometheus) -> None:
    """One test, for the job takes half a minute."""
    every_query_of_the_dashboard_returns_data(prometheus)
    every_alert_has_what_it_compares(prometheus)
    the_killed_island_is_an_alert_and_nothing_else_is(prometheus)
    labels_are_bounded_by_the_islands(prometheus)


def test_rules_and_configurations_pass_promtool(tmp_path: Path) -> None:
    """That for jobs with certificates looks for them where they are made."""
    certs = tmp_path / "certs"
    make_authority("reef", certs, days=1)
    for file in ("alerts.yml", "prometheus-tls.yml"):
        shutil.copy(OPS / file, certs)
    for kind, path in (
        ("rules", OPS / "alerts.yml"),
        ("config", OPS / "prometheus.yml"),
        ("config", certs / "prometheus-tls.yml"),
    ):
        subprocess.run(["promtool", "check", kind, str(path)], check=True)


def test_the_name_in_the_configuration_is_that_of_islands_certificates() -> None:
    names = re.findall(r"server_name: (\S+)", (OPS / "prometheus-tls.yml").read_text())
    assert names == [Role.ISLAND.dns_name]

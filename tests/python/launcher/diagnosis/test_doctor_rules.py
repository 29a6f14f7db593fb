"""What the doctor makes of numbers: each rule at both sides of its line."""

from __future__ import annotations

import pytest

from atoll_launcher.diagnosis import rules
from atoll_launcher.diagnosis.rules import Finding, Level

MB = 1e6


@pytest.mark.parametrize(
    ("finding", "level", "advice"),
    [
        (rules.mtu(1500, 1448), Level.OK, ""),
        (rules.mtu(1200, 1148), Level.WARN, "MTU"),
        (rules.large_packets(True, None), Level.OK, ""),
        (rules.large_packets(False, 1300), Level.FAIL, "mtu 1300"),
        (rules.large_packets(False, None), Level.FAIL, "middlebox"),
        # 100 Mbit/s over 80 ms has 1 MB under way, and one connection needs twice that.
        (rules.buffers(12.5 * MB, 0.08, 4 << 20, 6 << 20), Level.OK, ""),
        (rules.buffers(12.5 * MB, 0.08, 1 << 20, 6 << 20), Level.WARN, 'wmem="4096 65536 2097152"'),
        (rules.buffers(12.5 * MB, 0.08, 4 << 20, 1 << 20), Level.WARN, "tcp_rmem"),
        (rules.congestion("cubic", ["cubic", "bbr"], 0.08, 0.01), Level.WARN, "sysctl -w"),
        (rules.congestion("cubic", ["cubic"], 0.08, 0.01), Level.WARN, "modprobe tcp_bbr"),
        (rules.congestion("cubic", ["cubic"], 0.08, 0.0), Level.OK, ""),
        (rules.congestion("cubic", ["cubic"], 0.001, 0.01), Level.OK, ""),
        (rules.congestion("bbr", ["cubic", "bbr"], 0.08, 0.01), Level.OK, ""),
        (rules.clock(0.4, 0.001, certificates=True), Level.OK, ""),
        (rules.clock(-30.0, 0.001, certificates=True), Level.WARN, "set-ntp"),
        (rules.clock(-400.0, 0.001, certificates=True), Level.FAIL, "set-ntp"),
        (rules.clock(-400.0, 0.001, certificates=False), Level.WARN, "set-ntp"),
        (rules.certificate("island 'a'", 29.0), Level.OK, ""),
        (rules.certificate("island 'a'", 2.0), Level.WARN, "atoll token"),
        (rules.certificate("island 'a'", -1.0), Level.FAIL, "atoll token"),
        (rules.versions("0.1.0", "0.1.0"), Level.OK, ""),
        (rules.versions("0.1.0", "0.2.0"), Level.WARN, "atoll==0.2.0"),
        (rules.reached_back("10.0.0.7", ["", ""], ["10.0.0.7"]), Level.OK, ""),
        (rules.reached_back("10.0.0.7", ["refused"], ["10.0.0.7"]), Level.WARN, "either side"),
        (rules.reached_back("10.0.0.7", ["refused"], [], here_alone=True), Level.WARN, "either"),
        (rules.reached_back("10.0.0.7", ["", ""], [], here_alone=True), Level.OK, ""),
        (rules.reached_back("198.51.100.7", [""], ["10.0.0.7"]), Level.WARN, "=198.51.100.7"),
        (rules.islands({"a": "", "b": ""}, reached=False), Level.OK, ""),
        (rules.islands({"a": "", "b": "refused"}, reached=True), Level.WARN, "dial this machine"),
        (rules.islands({"a": "", "b": "refused"}, reached=False), Level.WARN, "that both reach"),
        (rules.islands({"a": "no", "b": "refused"}, reached=False), Level.FAIL, "open a port"),
        (rules.open_files(1024), Level.WARN, "ulimit"),
        (rules.open_files(65536), Level.OK, ""),
    ],
)
def test_a_rule(finding: Finding, level: Level, advice: str) -> None:
    assert finding.level is level
    assert advice in finding.advice
    assert bool(finding.advice) == (level is not Level.OK)


def test_rates_say_when_several_connections_pay() -> None:
    alike = rules.rates((10 * MB, 10 * MB), (11 * MB, 11 * MB), 250 * MB)
    pays = rules.rates((10 * MB, 10 * MB), (40 * MB, 11 * MB), 250 * MB)
    most = rules.rates((200 * MB, 10 * MB), (240 * MB, 11 * MB), 250 * MB)
    assert "pay" not in alike.text
    assert "several connections pay" in pays.text
    assert "as a coordinator answers" in most.text
    assert "80 Mbit/s there and 80 Mbit/s back with 1 connection" in alike.text

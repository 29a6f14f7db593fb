"""`atoll plan`: one clear line for every mistake, files of networks, what programs read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from atoll_launcher.main import main
from atoll_launcher.planning.units import parse_count, parse_line, parse_rate, parse_time

MODEL = ["plan", "--params", "2.5B", "--layers", "24", "--step-s", "0.8"]
LINES = ["--islands", "4", "--link", "1gbit,80ms"]

SITES = """
[[site]]
name = "frankfurt"
islands = 2
link = "1gbit,60ms"
inside = "10gbit,1ms"

[[site]]
name = "home"
link = "100mbit/1gbit,40ms"
step_s = 1.6

[[between]]
sites = ["frankfurt", "home"]
link = "500mbit,90ms"
"""


def run_main(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code, out, err = run_main(capsys, *MODEL, *arguments, "--json")
    assert (code, err) == (0, "")
    value: dict[str, Any] = json.loads(out)
    return value


def test_rates_round_trips_and_counts_have_units() -> None:
    assert parse_rate("", "200mbit") == 25e6
    assert parse_rate("", "1.5Gbit/s") == 187.5e6
    assert parse_time("", "80ms") == pytest.approx(0.08)
    assert parse_time("", "0ms") == 0
    assert parse_line("", "100mbit/s/1gbit/s, 1.5s") == (12.5e6, 125e6, 1.5)
    assert parse_count("", "10e9") == 10**10
    assert parse_count("", "2.5B") == 2_500_000_000
    assert parse_count("", "125m") == 125_000_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what joins the islands: --islands 4 --link 1gbit,80ms, or --links FILE"),
        (["--link", "1gbit,80ms"], "say what joins the islands"),
        ([*LINES, "--params", "many"], "--params: 'many' is no number; write it like 10e9"),
        ([*LINES, "--params", "1.5"], "--params: 1.5 is not a whole number"),
        ([*LINES, "--params", "9e99"], "--params: 9e99 is not a whole number up to 1e12"),
        ([*LINES, "--params", "-1"], "--params: '-1' is no number"),
        ([*LINES, "--params", "0"], "--params 0: must be at least 1"),
        ([*LINES, "--params", "20"], "--params 20 are less than one for each of 24 layers"),
        ([*LINES, "--layers", "0"], "--layers 0: must be from 1 to 1000"),
        ([*LINES, "--step-s", "0"], "--step-s: 0.0 is not a step's seconds"),
        ([*LINES, "--step-s", "nan"], "--step-s: nan is not a step's seconds"),
        ([*LINES, "--islands", "0"], "--islands: 0 is not in 1 .. 10000 islands"),
        ([*LINES, "--islands", "10001"], "--islands: 10001 is not in 1 .. 10000 islands"),
        ([*LINES, "--link", "1gbit"], "--link: '1gbit' is no link; write rate and round trip"),
        ([*LINES, "--link", "1gb,80ms"], "--link: '1gb' is no rate; write it like 200mbit"),
        ([*LINES, "--link", "1gbit,80"], "--link: '80' is no round trip; write it like 80ms"),
        ([*LINES, "--link", "0gbit,80ms"], "--link: the rate 0gbit is not in 10kbit .. 10tbit"),
        ([*LINES, "--link", "1gbit,61s"], "--link: a round trip of 61s is more than a minute"),
        ([*LINES, "--link", "1e999gbit,1ms"], "--link: the rate 1e999gbit is not in"),
        ([*LINES, "--method", "streeming"], "not known, did you mean 'streaming'?"),
        ([*LINES, "--codec", "fp5"], "--codec fp5: not known, did you mean 'fp"),
        ([*LINES, "--plan", "rings"], "--plan rings: not known, did you mean 'ring'?"),
        ([*LINES, "--method", "sparseloco", "--codec", "fp4"], "an encoding of its own"),
        ([*LINES, "--method", "noloco", "--plan", "ring"], "noloco makes no all-reduce"),
        ([*LINES, "--every", "0"], "--every 0: must be from 1 to 1000000"),
        ([*LINES, "--overlap", "-1"], "--overlap -1: must be from 0"),
        ([*LINES, "--fragment-layers", "0"], "--fragment-layers 0: must be from 1"),
        ([*LINES, "--kept", "5000"], "--kept 5000: must be from 1 to 4096"),
        ([*LINES, "--bits", "nan"], "--bits nan: must be from"),
        ([*LINES, "--bits", "0"], "--bits 0: must be from"),
        ([*LINES, "--mtu", "100"], "--mtu 100: must be 576 .. 65535, or 0"),
        ([*LINES, "--target", "1.5"], "--target 1.5: a share of the time"),
        ([*LINES, "--target", "nan"], "--target nan: a share of the time"),
        ([*LINES, "--steps", "0"], "--steps 0: must be at least 1"),
        ([*LINES, "--links", "net.toml"], "--links says all of the network"),
        (["--links", "none.toml"], "--links none.toml: cannot be read: No such file"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run_main(capsys, *MODEL, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("atoll: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected [[site]] tables, or the matrices rates and rtts"),
        ("[", "--links net.toml: "),
        ("site = 3", "expected [[site]] tables"),
        ("site = [3]", "site 0: expected a table, not 3"),
        ("sites = []", "unknown key 'sites'; did you mean 'site'?"),
        ("[[site]]\nname='a'", "site 'a': link is missing; write it like"),
        ("[[site]]\nlink='1gbit,8ms'\nisland=2", "unknown key 'island'; did you mean 'islands'?"),
        ("[[site]]\nlink='1gbit,8ms'\nislands=true", "True is not a whole number of islands"),
        ("[[site]]\nlink='1gbit,8ms'\nislands=20000", "20000 is not in 1 .. 10000"),
        ("[[site]]\nlink='1gbit,8ms'\nstep_s=-1", "-1 is not a step's seconds"),
        ("[[site]]\nlink='1gbit,8ms'\nname=3", "name: expected a text, not 3"),
        ("[[site]]\nlink='a,8ms'", "site 'site-0': link: 'a' is no rate"),
        (SITES.replace('name = "home"', 'name = "frankfurt"'), "two sites are named 'frankfurt'"),
        (SITES.replace('"frankfurt", "home"', '"frankfort", "home"'), "did you mean 'frankfurt'"),
        (SITES.replace('"frankfurt", "home"', '"home"'), "expected the names of two sites"),
        ("rates = [['1gbit']]", "'rtts' is missing"),
        ("rates = []\nrtts = []", "rates: expected a list of rows"),
        ("rates = [[0,'1gbit'],['1gbit']]\nrtts = []", "rates[1]: expected a list of 2"),
        ("rates = [[0,1],['1gbit',0]]\nrtts = []", "rates[0][1]: 1 is no text with a unit"),
        ("rates = [['-']]\nrtts = [['-','1ms'],['1ms','-']]", "rates are of 1 islands and rtts of"),
        ("rates = [['-']]\nrtts = [['-']]\nstep_s = [1,2]", "step_s is of 2 islands, rates of 1"),
    ],
)
def test_a_wrong_file_is_one_line_and_exit_code_2(
    text: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.toml").write_text(text)
    code, out, err = run_main(capsys, *MODEL, "--links", "net.toml")
    assert (code, out) == (2, "")
    assert err.startswith("atoll: --links net.toml: ")
    assert message in err
    assert err.count("\n") == 1


def test_files_that_are_no_text_or_nested_without_end_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in (("a.toml", b"\xff\xfe"), ("b.json", b"[" * 100_000)):
        (tmp_path / name).write_bytes(content)
        code, _, err = run_main(capsys, *MODEL, "--links", str(tmp_path / name))
        assert (code, err.count("\n")) == (2, 1)


def test_programs_get_everything_of_the_method_and_of_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    value = planned(capsys, *LINES, "--method", "streaming", "--codec", "fp4", "--overlap", "5")
    assert value["method"] == "streaming"
    assert value["codec"] == "fp4"
    assert value["plan"] == "direct"
    assert 0 < value["compute_utilization"] <= 1
    assert value["compute_utilization"] == value["methods"]["streaming"]["compute_utilization"]
    assert set(value["methods"]) == {
        "data-parallel",
        "diloco",
        "streaming",
        "sparseloco",
        "noloco",
    }
    assert value["recommended"] in value["methods"]
    payload = 2 * 3 / 4 * 2.5e9 * 4.125 / 8
    assert value["sent_bytes_per_round"] == pytest.approx(payload, rel=2e-3)
    # The others stay as they are usually used.
    assert value["methods"]["diloco"]["overlap"] == 0
    assert value["methods"]["diloco"]["codec"] == "fp32"


def test_a_fitted_width_gives_the_published_model(capsys: pytest.CaptureFixture[str]) -> None:
    """The cells of docs/planning.md, at the command line: 90 % and not before."""
    model = ["--params", "1e9", "--step-s", "0.1", "--method", "streaming", "--overlap", "0"]
    for rate, reached in (("9.2gbit", True), ("7.5gbit", False)):
        value = planned(capsys, *model, "--islands", "2", "--link", f"{rate},0ms", "--bits", "13.4")
        assert (value["compute_utilization"] >= 0.9) is reached
        assert value["start"] == "layer"


def test_sites_and_a_matrix_of_the_same_network_are_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.toml").write_text(SITES)
    matrix = {
        "rates": [
            ["-", "10gbit", "500mbit"],
            ["10gbit", "-", "500mbit"],
            ["100mbit", "100mbit", "-"],
        ],
        "rtts": [["-", "1ms", "90ms"], ["1ms", "-", "90ms"], ["90ms", "90ms", "-"]],
        "step_s": [0.8, 0.8, 1.6],
    }
    (tmp_path / "net.json").write_text(json.dumps(matrix))
    one = planned(capsys, "--links", str(tmp_path / "net.toml"))
    other = planned(capsys, "--links", str(tmp_path / "net.json"))
    assert one == other
    assert one["islands"] == 3


def test_people_get_a_table_the_best_method_and_warnings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = run_main(
        capsys, *MODEL, *LINES, "--method", "streaming", "--overlap", "100", "--rates"
    )
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("4 islands, 2.5B parameters in 24 layers, slowest link 965Mbit/s")
    assert any(line.startswith("recommended: ") for line in lines)
    assert sum("data-parallel" in line for line in lines) >= 2  # both tables
    assert err.startswith("atoll: warning: overlap 100 is not below every 100")
    assert err.count("\n") == 1


def test_the_largest_of_everything_is_planned(capsys: pytest.CaptureFixture[str]) -> None:
    largest = ["--params", "1e12", "--layers", "1000", "--islands", "10000", "--start", "layer"]
    value = planned(capsys, *largest, "--link", "10tbit,0ms")
    for found in value["methods"].values():
        assert 0 < found["compute_utilization"] <= 1
    assert value["methods"]["diloco"]["sent_bytes_per_round"] > 7.9e12

"""Measures all-reduces over emulated wide-area networks and prints one table.

    make wan                                   # everything, about 40 minutes
    make wan WAN_ARGS="clean lossy --quick"    # some scenarios, fewer and smaller ops
    make wan WAN_ARGS="--json raw.json"
    make wan WAN_ARGS="clean --hivemind /somewhere/bin/python"

Scenarios: clean, lossy, codecs, slow, follow, cut, train (what each is: its docstring below). Each
runs with every congestion control of --congestion that the system has, for all hosts; `auto` leaves
the hosts at the machine's and lets our links choose (ATOLL_CONGESTION=auto).

A measurement during which the emulator was late (2 ms at the 99th percentile) is void: it is
tried again, and says VOID if no try was on time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from wan_group import Group, gloo, hivemind, islands
from wan_lab import Lab, LabError, Report, why_not
from wan_profile import ProfileError, load

MIB = 1 << 20
TRIES = 3
LINE_BYTES_PER_S = 200e6 / 8


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. `limit_s`: what the lines allow, payload alone; 0: not a transfer."""

    scenario: str
    congestion: str
    what: str
    seconds: float
    limit_s: float = 0.0
    goal: str = ""
    is_void: bool = False
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the command line says."""

    iterations: int
    mtu: int
    sizes: tuple[int, ...]
    beside: bool
    hivemind: str | None = None
    name: str = "auto"

    @property
    def system(self) -> str | None:
        """Of the hosts' TCP."""
        return None if self.name == "auto" else self.name

    @property
    def ours(self) -> dict[str, str]:
        """Settings of the islands."""
        return {"congestion": "auto" if self.name == "auto" else "system"}


def limit_s(nbytes: int, members: int = 4, bytes_per_s: float = LINE_BYTES_PER_S) -> float:
    """2 (N-1)/N vectors through each member's line."""
    return 2 * (members - 1) / members * nbytes / bytes_per_s


def size_text(nbytes: int) -> str:
    """1 KiB, 64 MiB."""
    return f"{nbytes // MIB} MiB" if nbytes >= MIB else f"{nbytes // 1024} KiB"


def measured(
    lab: Lab, group: Group, nbytes: int, settings: Settings, **options: Any
) -> tuple[float, Report, str]:
    """The median of all members' times, tried again while the emulator is late."""
    asked = {"do": "all_reduce", "bytes": nbytes, "iterations": settings.iterations, "warm_up": 1}
    for _ in range(TRIES):
        lab.mark()
        answers = group.ask({**asked, **options}, timeout_s=60 + 400 * limit_s(nbytes))
        report = lab.report()
        if not report.is_void:
            break
    times = [time_s for one in answers for time_s in one["times_s"]]
    return median(times), report, answers[0].get("plan", "")


def transfers(
    scenario: str, profile: str, goals: dict[int, str], settings: Settings
) -> Iterator[Row]:
    """All sizes by us and by gloo, over one profile."""
    with Lab.start(load(profile), mtu=settings.mtu, congestion=settings.system) as lab:

        def rows(group: Group, label: str, goal: dict[int, str], least: int = 0) -> Iterator[Row]:
            for nbytes in (one for one in settings.sizes if one >= least):
                seconds, report, plan = measured(lab, group, nbytes, settings)
                yield Row(
                    scenario=scenario,
                    congestion=settings.name,
                    what=f"{label} {size_text(nbytes)}",
                    seconds=seconds,
                    limit_s=limit_s(nbytes) if nbytes >= MIB else 0.0,
                    goal=goal.get(nbytes, ""),
                    is_void=report.is_void,
                    note=f"{plan} late {report.late_p99_us} us".strip(),
                )

        with islands(lab, **settings.ours) as group:
            group.wait_measured()
            yield from rows(group, "atoll", goals)
        if settings.beside:
            with gloo(lab) as group:
                yield from rows(group, "gloo", {})
        if settings.hivemind is not None:
            with hivemind(lab, settings.hivemind) as group:
                yield from rows(group, "hivemind", {}, least=MIB)  # it did not average 1 KiB


def clean(settings: Settings) -> Iterator[Row]:
    """Four islands, 200 Mbit/s each, round trips of 80 ms."""
    goals = {1024: "0.130 s", 16 * MIB: "1.12 s", 64 * MIB: "90 % (4.47 s)"}
    return transfers("clean", "transatlantic", goals, settings)


def lossy(settings: Settings) -> Iterator[Row]:
    """The same, and every thousandth packet is lost."""
    quick = {16 * MIB: "1.45 s" if settings.name == "cubic" else "1.2 s"}
    return transfers("lossy", "lossy", {**quick, 64 * MIB: "70 % (5.75 s)"}, settings)


def codecs(settings: Settings) -> Iterator[Row]:
    """The clean network with fewer bits: int8 should be 3.6 times as fast as fp32."""
    nbytes = max(settings.sizes)
    with (
        Lab.start(load("transatlantic"), mtu=settings.mtu, congestion=settings.system) as lab,
        islands(lab, **settings.ours) as group,
    ):
        group.wait_measured()
        plain_s, _, _ = measured(lab, group, nbytes, settings)
        for codec, goal in (("int8", "3.6 x"), ("fp4", "")):
            seconds, report, _ = measured(lab, group, nbytes, settings, codec=codec)
            yield Row(
                scenario="codecs",
                congestion=settings.name,
                what=f"atoll {size_text(nbytes)} {codec}",
                seconds=seconds,
                goal=goal,
                is_void=report.is_void,
                note=f"{plain_s / seconds:.2f} times as fast as fp32 ({plain_s:.2f} s)",
            )


def slow(settings: Settings) -> Iterator[Row]:
    """One line has 50 Mbit/s: parts sized by the measured links, and equal parts (not measured)."""
    nbytes = max(settings.sizes)
    seconds = {}
    profile = load("transatlantic")
    hosts = list(profile.hosts)
    hosts[3] = dataclasses.replace(hosts[3], up_mbit=50.0, down_mbit=50.0)
    profile = dataclasses.replace(profile, hosts=tuple(hosts))
    late = False
    for label, probe in (("equal parts", "0"), ("weighted parts", "1")):
        with (
            Lab.start(profile, mtu=settings.mtu, congestion=settings.system) as lab,
            islands(lab, probe=probe, **settings.ours) as group,
        ):
            if probe == "1":
                group.wait_measured()
            seconds[label], report, _ = measured(lab, group, nbytes, settings, plan="direct")
            late = late or report.is_void
    faster = seconds["equal parts"] / seconds["weighted parts"]
    yield Row(
        scenario="slow",
        congestion=settings.name,
        what=f"atoll {size_text(nbytes)}, one line of 50 Mbit/s",
        seconds=seconds["weighted parts"],
        goal="1.5 x",
        is_void=late,
        note=f"{faster:.2f} times as fast as equal parts ({seconds['equal parts']:.2f} s)",
    )


def follow(settings: Settings) -> Iterator[Row]:
    """A line falls to 50 Mbit/s while ops run: after how many of them the plan has followed."""
    nbytes = 16 * MIB
    with (
        Lab.start(load("transatlantic"), mtu=settings.mtu, congestion=settings.system) as lab,
        islands(lab, **settings.ours) as group,
    ):
        group.wait_measured()
        before_s, _, _ = measured(lab, group, nbytes, settings)
        epoch = group.ask({"do": "state"})[0]["epoch"]
        lab.tell("host 3 up 50 down 50")
        times = []
        one = {"do": "all_reduce", "bytes": nbytes, "iterations": 1, "warm_up": 0}
        lab.mark()
        while len(times) < 40 and group.ask({"do": "state"})[0]["epoch"] == epoch:
            times.append(max(answer["times_s"][0] for answer in group.ask(one)))
        settled = dataclasses.replace(settings, iterations=3)
        after_s, report, _ = measured(lab, group, nbytes, settled)
    yield Row(
        scenario="follow",
        congestion=settings.name,
        what="atoll 16 MiB, a line falls to 50 Mbit/s",
        seconds=after_s,
        is_void=report.is_void,
        note=f"{before_s:.2f} s before, {median(times):.2f} s until the plan followed after "
        f"{len(times)} ops",
    )


TRAINING = {
    "do": "train",
    "parameters": 4 << 20,
    "blocks": 8,
    "step_s": 0.1,
    "sync_every": 40,
    "rounds": 4,
}
"""16 MiB of fp32, a round of 4 s."""


def train(settings: Settings) -> Iterator[Row]:
    """Blocking DiLoCo in fp32, and streaming DiLoCo in fp4: how much of the time is computing."""
    streaming = {"method": "streaming", "fragments": 4, "overlap": 5, "codec": "fp4"}
    for label, goal, method in (
        ("blocking DiLoCo fp32", "below 80 %", {"method": "diloco"}),
        ("streaming DiLoCo fp4", "above 95 %", streaming),
    ):
        with (
            Lab.start(load("transatlantic"), mtu=settings.mtu, congestion=settings.system) as lab,
            islands(lab, **settings.ours) as group,
        ):
            group.wait_measured()
            lab.mark()
            answers = group.ask({**TRAINING, **method}, timeout_s=120)
            report = lab.report()
        computing = median(one["compute_utilization"] for one in answers)
        yield Row(
            scenario="train",
            congestion=settings.name,
            what=label,
            seconds=median(one["round_s"] for one in answers),
            goal=goal,
            is_void=report.is_void,
            note=f"{100 * computing:.1f} % computing; late {report.late_p99_us} us",
        )


def cut(settings: Settings) -> Iterator[Row]:
    """An island is cut off for 20 s: what it costs the others, and whether it comes back."""
    with (
        Lab.start(load("transatlantic"), mtu=settings.mtu, congestion=settings.system) as lab,
        islands(lab, **settings.ours) as group,
    ):
        group.wait_measured()
        # No barriers between the ops: whoever comes back begins with whatever the others do next.
        ask = {"do": "rounds", "bytes": MIB, "members": lab.hosts, "late": False}
        everybody = [*range(lab.hosts)]
        group.tell(ask, everybody)
        time.sleep(3)
        lab.tell("isolate 3")
        cut_s = time.time()
        time.sleep(20)
        lab.tell("rejoin 3")
        healed_s = time.time()
        while group.processes[3].poll() is None and not group.has_answered(0):
            if time.time() > healed_s + 60:
                raise LabError("the island that was cut off did not end or come back within 60 s")
            time.sleep(0.02)
        if not group.has_answered(0):
            group.restart(3)
            group.answers(60, [3])
            group.tell({**ask, "late": True}, [3])
        rounds = [answer["rounds"] for answer in group.answers(60, everybody[:3])]
    # All three have made the same ops.
    took = [(one[0][0], max(took_s for _, took_s in one)) for one in zip(*rounds, strict=True)]
    usual_s = median(took_s for began_s, took_s in took if began_s + took_s < cut_s)
    times = [took_s for began_s, took_s in took if cut_s <= began_s + took_s < healed_s]
    slow_ones = sum(time_s > 3 * usual_s + 0.5 for time_s in times)
    back_s = sum(took[-1]) - healed_s
    yield Row(
        scenario="cut",
        congestion=settings.name,
        what="an island cut off for 20 s",
        seconds=max(times),
        goal="1 round",
        note=f"{slow_ones} of the others' {len(times)} rounds waited; back {back_s:.1f} s after "
        "the cut was healed",
    )


SCENARIOS: dict[str, Callable[[Settings], Iterator[Row]]] = {
    "clean": clean,
    "lossy": lossy,
    "codecs": codecs,
    "slow": slow,
    "follow": follow,
    "cut": cut,
    "train": train,
}


def show(row: Row) -> None:
    share = f"{row.limit_s / row.seconds * 100:.0f} %" if row.limit_s else ""
    void = "VOID " if row.is_void else ""
    print(
        f"| {row.scenario} | {row.congestion} | {row.what} | {void}{row.seconds:.3f} | {share} "
        f"| {row.goal} | {row.note} |",
        flush=True,
    )


def available(names: list[str]) -> list[str]:
    """Those that this system has; says which it has not."""
    path = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
    there = [*path.read_text().split(), "auto"]
    for name in names:
        if name not in there:
            print(f"no congestion control {name} here; left out", file=sys.stderr)
    return [name for name in names if name in there]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("scenarios", nargs="*", choices=[*SCENARIOS, []], default=[])
    parser.add_argument("--congestion", nargs="*", default=["cubic", "bbr"])
    parser.add_argument("--mtu", type=int, default=1500)
    parser.add_argument("--quick", action="store_true", help="up to 16 MiB, medians of 3")
    parser.add_argument("--alone", action="store_true", help="nobody else beside us")
    parser.add_argument("--hivemind", help="beside us, too: a python that has the package")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    if (reason := why_not()) is not None:
        print(f"make wan: SKIPPED, nothing was measured: it {reason}", file=sys.stderr)
        return 0
    settings = Settings(
        iterations=3 if chosen.quick else 5,
        mtu=chosen.mtu,
        sizes=(1024, 16 * MIB) if chosen.quick else (1024, 16 * MIB, 64 * MIB),
        beside=not chosen.alone,
        hivemind=chosen.hivemind,
    )
    os.nice(-10)
    print("| scenario | congestion | what | median, s | of the limit | goal | notes |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    failed = 0
    for name in chosen.scenarios or SCENARIOS:
        for congestion in available(chosen.congestion):
            try:
                for row in SCENARIOS[name](dataclasses.replace(settings, name=congestion)):
                    rows.append(row)
                    show(row)
            except (LabError, ProfileError) as error:
                failed += 1
                print(f"{name}, {congestion}: {error}", file=sys.stderr)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
    return 1 if failed or any(row.is_void for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())

"""Makes docs/results.md and its plots from the JSON files of `run.py`.

    .venv/bin/python bench/python/reproduce/report.py [--results DIR] [--page FILE]

Plots need matplotlib (the `demo` extra); without it the page has none.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from settings import EXPERIMENTS, Experiment, Goal

ROOT = Path(__file__).resolve().parents[3]
Result = dict[str, Any]
Results = dict[str, list[Result]]

INTRODUCTION = """# Results

What the low-communication methods lose and save, on a tiny GPT. Written by
`bench/python/reproduce/report.py` from the files in `docs/results/`, one for each run and seed,
which `make reproduce-diloco` writes (`-streaming`, `-noloco`, `-sparseloco`, `-eager`, `-churn`,
`-lgreco`).

{islands} islands live in one process: the same functions, codecs and kernels as in the runtime,
without its network. All methods see the same samples in the same order, {tokens:.1f} M tokens, with
AdamW inside, the same warm-up and the same cosine. The model has {parameters:.2f} M parameters, the
text is the Python files of the standard library by bytes (corpus {corpus}, {passes:.2f} passes).
A run's result is its validation loss at the end, in nats a byte: of the outer parameters, or the
mean of the replicas' where these differ (eager, NoLoCo). Seeds {seeds}; mean and deviation over
them; two runs are compared over the seeds that both have. *Sent* is what one island sends in the
whole run, payload by formula (`atoll.methods.traffic`).

Machine: {machine}.
"""


def load(folder: Path) -> Results:
    found: Results = {}
    for path in sorted(folder.glob("*-seed*.json")):
        result = json.loads(path.read_text())
        found.setdefault(result["name"], []).append(result)
    return found


def loss(results: Results, name: str) -> float:
    return statistics.fmean(result["validation_loss"] for result in results[name])


def more_than(results: Results, name: str, reference: str) -> tuple[float, int]:
    """(how much larger the loss is, relative; seeds), over the seeds that both have."""
    seeds = {r["seed"] for r in results[name]} & {r["seed"] for r in results[reference]}
    if not seeds:
        return math.nan, 0
    of = {
        run: statistics.fmean(r["validation_loss"] for r in results[run] if r["seed"] in seeds)
        for run in (name, reference)
    }
    return of[name] / of[reference] - 1, len(seeds)


def deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def shown_losses(losses: list[float]) -> str:
    spread = f" ± {deviation(losses):.4f}" if len(losses) > 1 else " (one seed)"
    return f"{statistics.fmean(losses):.4f}{spread}"


def shown_bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def shown_settings(result: Result) -> str:
    options = {"lr": result["run"]["lr"], **result["run"]["options"]}
    return ", ".join(f"{key} {value}" for key, value in options.items())


def reference_of(results: Results, goal: Goal) -> str | None:
    """The strongest of the goal's references that were run."""
    present = [name for name in goal.reference if name in results]
    return min(present, key=lambda name: loss(results, name), default=None)


def table(results: Results, experiment: Experiment) -> list[str]:
    names = [name for name in experiment.runs if name in results]
    goals = [goal for goal in experiment.goals if goal.run in results]
    baseline = (reference_of(results, goals[0]) if goals else None) or names[0]
    lines = [
        f"| run | settings | rounds | validation loss | beside {baseline} | sent | "
        f"{baseline} sends |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        runs = results[name]
        losses = [run["validation_loss"] for run in runs]
        sent = statistics.fmean(run["sent_bytes"] for run in runs)
        more, _ = more_than(results, name, baseline)
        times = statistics.fmean(run["sent_bytes"] for run in results[baseline]) / sent
        lines.append(
            f"| {name} | {shown_settings(runs[0])} | {runs[0]['rounds']} | "
            f"{shown_losses(losses)} | {more:+.2%} | "
            f"{shown_bytes(sent)} | {times:.3g} x |"
        )
    return lines


def verdicts(results: Results, experiment: Experiment) -> list[str]:
    lines = []
    for goal in experiment.goals:
        best = reference_of(results, goal)
        if goal.run not in results or best is None:
            continue
        more, seeds = more_than(results, goal.run, best)
        met = "met" if more <= goal.within else "**missed**"
        lines.append(
            f"- {goal.run} within {goal.within:.0%} of {best}: {more:+.2%}, {met} (seeds: {seeds})."
        )
    for name in experiment.runs:
        payload = next((run.get("payload_bytes") for run in results.get(name, [])), None)
        if payload:
            parameters = results[name][0]["parameters"]
            lines.append(
                f"- {name}: a payload has {payload} bytes for {parameters} parameters, "
                f"{4 * parameters / payload:.1f} times fewer than fp32."
            )
        if spread := [run["spread"] for run in results.get(name, []) if run.get("spread")]:
            largest = statistics.fmean(max(point["rms"] for point in run) for run in spread)
            last = statistics.fmean(run[-1]["rms"] for run in spread)
            lines.append(
                f"- {name}: the replicas' distance from their mean (rms of a parameter) is "
                f"{largest:.3g} at most and {last:.3g} at the end."
            )
    return lines


def lgreco_lines(runs: list[Result]) -> list[str]:
    lines = [
        "Total error no larger than that of one setting for all layers, on the mean gradient of "
        f"{runs[0]['gradients']} batches",
        f"after {runs[0]['steps']} steps. Goal: 1.3 times fewer bytes.",
        "",
        "| family | reference | uniform | allocated | times fewer | error, allocated / uniform |",
        "|---|---|---|---|---|---|",
    ]
    for family, first in runs[0]["families"].items():
        all_of = [run["families"][family] for run in runs]
        ratios = [one["ratio"] for one in all_of]
        error = statistics.fmean(one["allocated_error"] / one["uniform_error"] for one in all_of)
        lines.append(
            f"| {family} | {first['reference']} | {shown_bytes(first['uniform_bytes'])} | "
            f"{shown_bytes(first['allocated_bytes'])} | {statistics.fmean(ratios):.2f} ± "
            f"{deviation(ratios):.2f} | {error:.4f} |"
        )
    return lines


def plot(results: Results, name: str, experiment: Experiment, folder: Path) -> bool:
    """Writes NAME.svg: validation loss by tokens; for NoLoCo the replicas' spread beside it."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("svg")
    # No date and no random ids: the same results make the same file.
    matplotlib.rcParams["svg.hashsalt"] = "atoll"
    import matplotlib.pyplot as plt

    spread = [run for run in experiment.runs if any(r.get("spread") for r in results.get(run, []))]
    figure, axes = plt.subplots(
        1, 1 + bool(spread), figsize=(6 + 4 * bool(spread), 3.6), squeeze=False
    )
    left = axes[0][0]
    for run in experiment.runs:
        if run in results:
            curves = [result["curve"] for result in results[run]]
            points = [
                statistics.fmean(point["validation"] for point in at)
                for at in zip(*curves, strict=False)
            ]
            tokens = [point["progress"] * results[run][0]["tokens"] / 1e6 for point in curves[0]]
            left.plot(tokens[: len(points)], points, label=run, linewidth=1.2)
    left.set(xlabel="million tokens", ylabel="validation loss, nats a byte")
    left.legend(fontsize=7)
    if spread:
        right = axes[0][1]
        for run in spread:
            points = results[run][0]["spread"]
            right.plot([p["progress"] for p in points], [p["rms"] for p in points], label=run)
        right.set(xlabel="part of the tokens", ylabel="rms distance from the replicas' mean")
        right.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)
    return True


def page(results: Results, folder: Path, images: str) -> str:
    """The text of the page; `images`: where the plots in `folder` are, seen from it."""
    some = next(iter(results.values()))[0]
    place = some["machine"]
    lines = [
        INTRODUCTION.format(
            islands=some["size"]["islands"],
            tokens=some["tokens"] / 1e6,
            passes=some["passes"],
            corpus=some["corpus"],
            parameters=some["parameters"] / 1e6,
            seeds=", ".join(sorted({str(r["seed"]) for runs in results.values() for r in runs})),
            machine=f"{place['name']} ({place['device']}), {place['cores']} cores, torch "
            f"{place['torch']}, Python {place['python']}, kernels of {place['core']}",
        )
    ]
    for name, experiment in EXPERIMENTS.items():
        if not any(run in results for run in experiment.runs):
            continue
        lines += [f"## {experiment.title}", f"    make reproduce-{name}", ""]
        if name == "lgreco":
            lines += [*lgreco_lines(results["lgreco"]), ""]
            continue
        lines += [*table(results, experiment), "", *verdicts(results, experiment), ""]
        if plot(results, name, experiment, folder):
            lines += [f"![{experiment.title}]({images}/{name}.svg)", ""]
    for part in (folder / "peers/page.md", folder / "notes.md"):
        if part.is_file():
            lines.append(part.read_text())
    return "\n".join(lines).rstrip() + "\n"


def write(folder: Path, target: Path) -> None:
    """Raises SystemExit when the folder has no runs, or runs of different sizes."""
    results = load(folder)
    if not results:
        raise SystemExit(f"no run in {folder}; run.py writes them")
    trained = [runs for name, runs in results.items() if name != "lgreco"]
    sizes = {json.dumps(r["size"], sort_keys=True) for runs in trained for r in runs}
    if len(sizes) > 1:
        raise SystemExit(f"{folder} holds runs of different sizes; remove those of one")
    target.write_text(page(results, folder, os.path.relpath(folder, target.parent)))
    print(f"wrote {target}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / "docs/results")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/results.md")
    arguments = parser.parse_args()
    write(arguments.results, arguments.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The plot of a run of the demo: losses, members and tokens a second over time."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # draws into files; needs no screen

import matplotlib.pyplot as plt
from demo_summary import Run, commits, of_kind, throughput, views
from matplotlib.axes import Axes

BLUE, ORANGE, GREY = "#1f6f8b", "#e07a3f", "#777777"


def plot(run: Run, block: int, path: Path) -> None:
    """Write a PNG. `block`: tokens of a sample."""
    began_s = min(event.time_s for event in run.events)
    figure, axes = plt.subplots(
        3, 1, figsize=(9, 7.5), sharex=True, height_ratios=[3, 1, 1], layout="constrained"
    )
    _losses(axes[0], run, began_s)
    _members(axes[1], run, began_s)
    _rate(axes[2], run, block, began_s)
    for axis in axes:
        axis.axvline(run.killed_at_s - began_s, color=ORANGE, linestyle="--")
        if run.joiner_began_s:
            axis.axvline(run.joiner_began_s - began_s, color=BLUE, linestyle="--")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    _label(axes[0], run.killed_at_s - began_s, f"SIGKILL {run.killed}", ORANGE)
    if run.joiner_began_s:
        _label(axes[0], run.joiner_began_s - began_s, "one more is started", BLUE)
    axes[-1].set_xlabel("seconds")
    figure.suptitle("Three islands, one is killed, one joins")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _losses(axis: Axes, run: Run, began_s: float) -> None:
    rounds = [event for event in of_kind(run.events, "round") if event.fields["loss"] is not None]
    axis.plot(
        [event.time_s - began_s for event in rounds],
        [event.fields["loss"] for event in rounds],
        color=GREY,
        linewidth=1,
        label="training, mean of the islands",
    )
    # Evaluated right after the round; the first parameters right after the first view.
    ends_s = {entry.round: entry.time_s for entry in commits(run.journals)}
    ends_s[0] = min((view.time_s for view in of_kind(run.events, "view")), default=began_s)
    numbers = sorted(run.validation.keys() & ends_s.keys())
    axis.plot(
        [ends_s[number] - began_s for number in numbers],
        [run.validation[number] for number in numbers],
        color=BLUE,
        marker=".",
        label="validation, outer parameters",
    )
    axis.set_ylabel("loss, nats a byte")
    axis.legend(frameon=False)


def _members(axis: Axes, run: Run, began_s: float) -> None:
    known = views(run.events)
    if known:
        times = [view.time_s - began_s for view in known]
        sizes = [len(view.fields["members"]) for view in known]
        end = max(event.time_s for event in run.events) - began_s
        axis.step([*times, end], [*sizes, sizes[-1]], where="post", color=BLUE)
        axis.set_yticks(range(max(sizes) + 1))
    axis.set_ylabel("members")


def _rate(axis: Axes, run: Run, block: int, began_s: float) -> None:
    points = throughput(commits(run.journals), block)
    axis.plot([at - began_s for at, _ in points], [rate / 1000 for _, rate in points], color=BLUE)
    axis.set_ylim(bottom=0)
    axis.set_ylabel("1000 tokens/s")


def _label(axis: Axes, at: float, text: str, color: str) -> None:
    axis.annotate(
        text,
        (at, 0.97),
        xycoords=("data", "axes fraction"),
        xytext=(4, 0),
        textcoords="offset points",
        color=color,
        verticalalignment="top",
    )

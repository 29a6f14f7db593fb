"""What a run of the demo has shown: from its records to figures, verdicts and a table. No I/O.

Three records are used. The *events* are what `atoll run --events` wrote: what the coordinator and
the launcher saw. The *journals* are what each island wrote at each committed round: whose samples
are in the sum, and a digest of the state that came of it. The *logs* have what the script printed.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from atoll.data.journal import Audit, Entry, audit
from atoll.data.ledger import count

Journals = Mapping[str, Sequence[Entry]]
"""By island."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of the events file. `time_s` is Unix time."""

    kind: str
    time_s: float
    island: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All that was observed of a run, and what it was asked to do."""

    rounds: int
    parameters: int
    samples: int  # in one pass over the data
    killed: str  # an island's name
    killed_at_s: float
    joiner_began_s: float  # when `atoll run --join` was started
    events: Sequence[Event]
    journals: Journals
    validation: Mapping[int, float]  # loss on the held-out text, by round


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Bytes that one island sent in one round of a view of `islands`: median, and expected."""

    islands: int
    sent: float
    expected: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Figures; NaN where the run does not show one. `failures` is empty when all went well."""

    losses: tuple[float, float, float, float]  # at the start, before the kill, after it, at the end
    round_s: float
    kill_to_view_s: float
    kill_to_round_s: float
    joiner: str
    join_to_member_s: float
    join_to_contribution_s: float
    traffic: Sequence[Traffic]
    audit: Audit
    digest: str
    failures: Sequence[str]


def parse_event(line: str) -> Event:
    """Return the event of a line of the events file."""
    fields = json.loads(line)
    kind, time_s, island = fields.pop("kind"), fields.pop("time"), fields.pop("island", "")
    return Event(kind=kind, time_s=time_s, island=island, fields=fields)


# --- figures --------------------------------------------------------------------------------------


def of_kind(events: Iterable[Event], kind: str) -> list[Event]:
    """Return the events of one kind, in order."""
    return [event for event in events if event.kind == kind]


def views(events: Iterable[Event]) -> list[Event]:
    """Return the views whose members are known; the next view may have come too soon."""
    return [event for event in of_kind(events, "view") if "members" in event.fields]


def validation(log: str) -> dict[int, float]:
    """Return the losses on the held-out text that an island has printed, by round."""
    lines = re.findall(r"^round (\d+): validation loss ([\d.]+)$", log, re.MULTILINE)
    return {int(number): float(loss) for number, loss in lines}


def four_losses(losses: Mapping[int, float], round_: int) -> tuple[float, float, float, float]:
    """Return the losses at the start, until `round_`, after it, and at the end."""
    before = [losses[number] for number in sorted(losses) if number <= round_] or [math.nan]
    after = [losses[number] for number in sorted(losses) if number > round_] or [math.nan]
    return before[0], before[-1], after[0], after[-1]


def commits(journals: Journals) -> list[Entry]:
    """Return the entry of each round, by the island that was first to see it committed."""
    first: dict[int, Entry] = {}
    for entry in sorted((e for es in journals.values() for e in es), key=lambda e: e.time_s):
        first.setdefault(entry.round, entry)
    return [first[number] for number in sorted(first)]


def throughput(entries: Sequence[Entry], block: int) -> list[tuple[float, float]]:
    """Return (Unix time, tokens a second of all islands) at each round's commit."""
    return [
        (after.time_s, block * count(after.spans) / max(1e-9, after.time_s - before.time_s))
        for before, after in pairwise(entries)
    ]


def traffic(events: Sequence[Event], parameters: int) -> list[Traffic]:
    """Compare the bytes that islands sent in a round with those that an all-reduce needs.

    With the ring as with the direct plan, each of N sends 2 (N - 1) / N times its vector.
    """
    sizes = {view.fields["epoch"]: len(view.fields["members"]) for view in views(events)}
    sent: dict[str, dict[int, tuple[int, int]]] = {}  # island -> round -> (epoch, bytes until then)
    for report in of_kind(events, "report"):
        until = (report.fields["epoch"], report.fields["sent_bytes"])
        sent.setdefault(report.island, {}).setdefault(report.fields["round"], until)
    measured: dict[int, list[int]] = {}
    for rounds in sent.values():
        for number, (epoch, total) in rounds.items():
            before_epoch, before = rounds.get(number - 1, (None, 0))
            # Where the view changed, some was sent twice, or was state for a joiner.
            if epoch == before_epoch and epoch in sizes:
                measured.setdefault(sizes[epoch], []).append(total - before)
    return [
        Traffic(
            islands=size,
            sent=statistics.median(measured[size]),
            expected=2 * (size - 1) / size * 4 * parameters,
        )
        for size in sorted(measured, reverse=True)
    ]


# --- verdicts -------------------------------------------------------------------------------------


def parity_failures(journals: Journals) -> list[str]:
    """Say where islands held different states after the same round."""
    digests: dict[int, dict[str, str]] = {}
    for island, entries in journals.items():
        for entry in entries:
            digests.setdefault(entry.round, {})[island] = entry.digest
    return [
        f"parity broken in round {number}: "
        + ", ".join(f"{island} {digest[:8]}" for island, digest in sorted(held.items()))
        for number, held in sorted(digests.items())
        if len(set(held.values())) > 1
    ]


def unfinished(run: Run) -> list[str]:
    """Say which islands skipped a round, or did not reach the last one without being killed."""
    failures = []
    for island, entries in sorted(run.journals.items()):
        numbers = [entry.round for entry in entries]
        if any(b != a + 1 for a, b in pairwise(numbers)):
            failures.append(f"{island} skipped a round: it has {numbers}")
        if island != run.killed and numbers[-1:] != [run.rounds]:
            failures.append(f"{island} ended after round {numbers[-1] if numbers else 0}")
    return failures


def summarize(run: Run) -> Summary:
    """Return the figures of a run, and all that went wrong in it."""
    entries = commits(run.journals)
    early = [entry.time_s for entry in entries if entry.time_s < run.killed_at_s]
    losses = four_losses(run.validation, len(early))
    without = [v.time_s for v in views(run.events) if run.killed not in v.fields["members"]]
    joined = [e for e in of_kind(run.events, "joined") if e.time_s >= run.joiner_began_s][:1]
    joiner = joined[0].fields["peer_id"] if joined else ""
    contributions = [entry.time_s for entry in entries if entry.used.get(joiner)]
    full_passes = max((entry.data_epoch for entry in entries), default=0)
    result = audit(run.journals, samples=run.samples, passes=full_passes)
    failures = [*parity_failures(run.journals), *result.problems, *unfinished(run)]
    # Written so that an unknown loss, a NaN, is a failure too.
    if not losses[3] < losses[1] < losses[0]:
        failures.append("the validation loss did not fall")
    if run.rounds not in run.validation:
        failures.append("the last outer parameters were not evaluated")
    if not contributions:
        failures.append("the joiner contributed to no round")
    return Summary(
        losses=losses,
        round_s=statistics.median(b - a for a, b in pairwise(early)) if early[1:] else math.nan,
        kill_to_view_s=_since(run.killed_at_s, without),
        kill_to_round_s=_since(run.killed_at_s, [entry.time_s for entry in entries]),
        joiner=joined[0].island if joined else "nobody",
        join_to_member_s=_since(run.joiner_began_s, [event.time_s for event in joined]),
        join_to_contribution_s=_since(run.joiner_began_s, contributions),
        traffic=traffic(run.events, run.parameters),
        audit=result,
        digest=entries[-1].digest if entries else "",
        failures=failures,
    )


def _since(moment_s: float, times_s: Iterable[float]) -> float:
    """Return the seconds from a moment to the first of the times that is later; NaN: none is."""
    return min((time_s - moment_s for time_s in times_s if time_s > moment_s), default=math.nan)


# --- the table ------------------------------------------------------------------------------------


def table(run: Run, summary: Summary) -> str:
    """Return the summary as text of at most 100 columns."""
    s = summary
    states = sum(len(entries) for entries in run.journals.values())
    used = sum(s.audit.positions.values())
    rows = [
        ("validation loss", "{:.3f} -> {:.3f} | kill | {:.3f} -> {:.3f}".format(*s.losses)),
        ("kill to view", f"{s.kill_to_view_s:.2f} s until the survivors have a new view"),
        (
            "kill to round",
            f"{s.kill_to_round_s:.2f} s until the next outer step; a round took {s.round_s:.2f} s",
        ),
        ("start to member", f"{s.join_to_member_s:.2f} s from `atoll run --join` to membership"),
        (
            "start to work",
            f"{s.join_to_contribution_s:.2f} s to the first outer step with its work in it",
        ),
    ]
    rows += [
        (
            f"sent, {t.islands} islands",
            f"{t.sent / 1e6:.3f} MB by each in a round; "
            f"2(N-1)/N x {run.parameters:,} x 4 bytes = {t.expected / 1e6:.3f} MB",
        )
        for t in s.traffic
    ]
    same = "BROKEN" if parity_failures(run.journals) else "equal"
    rows += [
        (
            "outer parameters",
            f"{same}: {states} states of {len(run.journals)} islands in {s.audit.rounds} rounds, "
            f"the last {s.digest[:12]}",
        ),
        (
            "samples",
            f"{used:,} used in {used / run.samples:.2f} passes, "
            + ("WRONGLY" if s.audit.problems else "none twice, none lost"),
        ),
    ]
    return "\n".join(f"  {name:<18}{text}" for name, text in rows)

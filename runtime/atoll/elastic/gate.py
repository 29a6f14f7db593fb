"""The gate before a new layout: nothing is computed in it unless all of this holds. Pure.

Every worker says what it holds, old copies and such as were just brought to it, and how it would
compute. All copies of a vshard must be one state; every owner and every backup must have theirs;
all must have the same run, step and layout in mind, and the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atoll.elastic.identity import Spine, VShard, Worker
from atoll.elastic.layout import Layout, problems

SLOTS = ("p", "m", "v")
OUTER_SLOTS = ("shared", "momentum")
"""With an outer method, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One copy of a vshard: the number of updates it has seen, and a digest of each slot."""

    version: int
    slots: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one worker says of itself.

    arithmetic: a fingerprint of how it sums, updates, draws and multiplies (`fingerprint.py`).
    spine, layout: digests. step: which one it computes next, and so its place in the data.
    """

    worker: Worker
    spine: str
    layout: str
    arithmetic: str
    step: int
    copies: Mapping[VShard, Copy]


def faults(
    evidence: Sequence[Evidence],
    layout: Layout,
    spine: Spine,
    *,
    step: int,
    slots: Sequence[str] = SLOTS,
) -> list[str]:
    """All reasons not to go on in this layout, one sentence each; empty when there is none."""
    found = list(problems(layout, spine))
    by_worker = {each.worker: each for each in evidence}
    silent = [worker for worker in layout.workers if worker not in by_worker]
    if silent:
        found.append(f"nothing was heard of {', '.join(silent)}")
    for what, said, wanted in (
        ("run", {each.worker: each.spine for each in evidence}, spine.digest()),
        ("layout", {each.worker: each.layout for each in evidence}, layout.digest()),
        ("step", {each.worker: str(each.step) for each in evidence}, str(step)),
    ):
        others = [worker for worker, own in said.items() if own != wanted]
        if others:
            found.append(f"{', '.join(others)}: another {what} than {wanted}")
    if len({each.arithmetic for each in evidence}) > 1:
        kinds = sorted((each.arithmetic, each.worker) for each in evidence)
        found.append(f"workers compute different numbers: {kinds}")
    if not found:
        for shard in spine.shards():
            found += _shard_faults(shard, by_worker, layout, step, slots)
    return found


def _shard_faults(
    shard: VShard,
    evidence: Mapping[Worker, Evidence],
    layout: Layout,
    step: int,
    slots: Sequence[str],
) -> list[str]:
    found = []
    copies = {
        worker: each.copies[shard] for worker, each in evidence.items() if shard in each.copies
    }
    for role, worker in (("owner", layout.owner(shard)), ("backup", layout.backup(shard))):
        copy = copies.get(worker) if worker is not None else None
        if worker is not None and copy is None:
            found.append(f"{worker}, the {role} of vshard {shard}, does not have it")
        elif copy is not None and copy.version != step:
            found.append(
                f"{worker}, the {role} of vshard {shard}, has version {copy.version}, not {step}"
            )
    current = {worker: copy for worker, copy in copies.items() if copy.version == step}
    for worker, copy in current.items():
        if tuple(sorted(copy.slots)) != tuple(sorted(slots)):
            found.append(f"{worker} has {sorted(copy.slots)} of vshard {shard}, not {slots}")
    if len({tuple(sorted(copy.slots.items())) for copy in current.values()}) > 1:
        found.append(f"the copies of vshard {shard} at {sorted(current)} differ")
    return found

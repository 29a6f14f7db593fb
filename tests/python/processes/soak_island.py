"""One island of the soak: ten int8 all-reduces in flight, each of which changes the shared state.

Op number r adds its mean to one tenth of a state of a million floats, which is then published, so a
joiner can begin at any op. What an op must give follows from who was in its view. A line per
op, its number and the state's digest, goes into a file that outlives a SIGKILL.

Runs in a forked process that has imported torch; anything wrong is an exception, and exit code 1.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections import deque
from pathlib import Path
from typing import Any

import torch
import xxhash

import atoll
from atoll.membership.messages import PeerId

ELEMENTS = 1_000_000
SLICES = 10
IN_FLIGHT = 10
# Two quantizations to int8 of equal numbers; a member more or less is at least 3 % of ten.
TOLERANCE = 0.01


def contribution(peer: PeerId, op: int) -> float:
    """What a member gives to an op: between 1 and 3."""
    return 1.0 + xxhash.xxh3_64_intdigest(peer + op.to_bytes(8, "little")) % 1000 / 500


def absorb(state: atoll.SharedTensors, tape: torch.Tensor, total: torch.Tensor) -> str:
    """Return the digest of the state after the op."""
    width = ELEMENTS // SLICES
    at = state.revision % SLICES * width
    tape[at : at + width] += total
    state.advance({"ops": state.revision + 1})
    return state.digest


def train(journal: Any) -> None:
    with atoll.join() as session:
        tape = torch.zeros(ELEMENTS)
        state = atoll.SharedTensors(session, {"tape": tape}, {"ops": 0})
        me = session.peer_id
        flying: deque[Any] = deque()
        submitted = state.revision
        width = ELEMENTS // SLICES
        while True:
            while len(flying) < IN_FLIGHT:
                source = torch.full((width,), contribution(me, submitted))
                flying.append(session.all_reduce(source, codec="int8"))
                submitted += 1
            handle = flying.popleft()
            outcome = handle.wait()
            op, total = state.revision, handle.target
            if outcome.sequence != op:
                raise ValueError(f"op {op} is number {outcome.sequence} of its channel")
            members = session.members_of(outcome.epoch)
            expected = sum(contribution(peer, op) for peer in members)
            least, most = total.min().item(), total.max().item()
            if max(abs(least - expected), abs(most - expected)) > TOLERANCE * expected:
                raise ValueError(
                    f"op {op} of {len(members)} members in view {outcome.epoch}: "
                    f"{least} to {most}, not {expected}"
                )
            journal.write(f"{op} {absorb(state, tape, total)}\n")
            if op % SLICES == 0:
                session.report(round=op // SLICES, phase="training")


def main(environment: dict[str, str], log: Path, journal: Path) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    with log.open("w") as errors:
        os.dup2(errors.fileno(), sys.stderr.fileno())
        os.dup2(errors.fileno(), sys.stdout.fileno())
    try:
        with journal.open("w", buffering=1) as lines:
            train(lines)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)

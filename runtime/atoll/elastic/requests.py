"""What a member's program asks of whoever drives it, and what it says to the others. Pure.

A program is a generator: it yields a request, and is sent the answer. When the view changes, the
driver throws `Interrupted` into it instead of an answer; sends and expectations of the view before
are void then. A gathering is a collective of the view: either all who stay get its result, or none.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from atoll.elastic.gate import Copy, Evidence
from atoll.elastic.identity import VShard, Worker
from atoll.elastic.recovery import Agreed, Computed, Report
from atoll.errors import MismatchError

if TYPE_CHECKING:
    from torch import Tensor

Key = tuple[str | int, ...]
"""Names one tensor on its way from one member to another; both know it, and its size."""


class Interrupted(Exception):
    """The view has changed. members: of the new one, oldest first."""

    def __init__(self, members: tuple[Worker, ...]) -> None:
        super().__init__(f"{len(members)} members")
        self.members = members


class OutsideChanged(Exception):
    """The view of the outer job has changed. members: of the new one, oldest first."""

    def __init__(self, members: tuple[Worker, ...]) -> None:
        super().__init__(f"{len(members)} members outside")
        self.members = members


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Answered at once. The tensor is not written to until the receiver has it."""

    target: Worker
    key: Key
    tensor: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Expect:
    """Answered at once: `target` will be filled by a `Send` of this key."""

    source: Worker
    key: Key
    target: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Receive:
    """Answered with the key of an expectation that has come true; each once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gather:
    """Answered with the texts of all members of the view, by name."""

    what: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Meet:
    """Answered, once this worker is in the view of the outer job, with its name there. What was
    under way in that job is void. `Interrupted` as in `Outside`, but only while there is something
    to wait for: to join, or for a gathering that goes on. What is said next outside comes first."""

    needs: tuple[Worker, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """A request that is carried out in the outer job; `OutsideChanged` instead of `Interrupted`.

    needs: `Interrupted` if the island's view lacks one of these; a gathering goes on by itself
    then, and the next request outside waits for its end.
    """

    request: Request
    needs: tuple[Worker, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Answered when the outer view has changed, or a moment later; `Interrupted` if the island's
    view lacks one of these."""

    needs: tuple[Worker, ...]


Request = Send | Expect | Receive | Gather | Meet | Outside | Watch
Result = TypeVar("Result")
Program = Generator[Request, Any, Result]


# ---- texts ---------------------------------------------------------------------------------------


def named(shard: VShard) -> str:
    return f"{shard[0]}.{shard[1]}"


def shard_of(name: str) -> VShard:
    layer, v = name.split(".")
    return int(layer), int(v)


def dump(**fields: Any) -> str:
    """Floats keep all their bits (repr), also where they are no numbers."""
    return json.dumps(fields, separators=(",", ":"))


def load(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise MismatchError(f"another member said what is no text of ours: {error}") from error
    if not isinstance(found, dict):
        raise MismatchError("another member said what is no text of ours")
    return found


def dump_report(report: Report) -> dict[str, Any]:
    return {
        "worker": report.worker,
        "step": report.step,
        "committed": report.committed,
        "agreed": None if report.agreed is None else asdict(report.agreed),
        "computed": [
            [each.first, each.last]
            + [sorted(own) for own in (each.nodes, each.outputs, each.gradients, each.tapes)]
            for each in report.computed
        ],
        "owned": _versions(report.owned),
        "shadows": _versions(report.shadows),
        "prepared": {named(shard): found for shard, found in report.prepared.items()},
        "parameters": _versions(report.parameters),
    }


def load_report(found: Mapping[str, Any]) -> Report:
    return Report(
        worker=found["worker"],
        step=found["step"],
        committed=found["committed"],
        agreed=None if found["agreed"] is None else Agreed(**found["agreed"]),
        computed=tuple(
            Computed(
                first=first,
                last=last,
                nodes=frozenset((k, i) for k, i in nodes),
                outputs=frozenset(outputs),
                gradients=frozenset(gradients),
                tapes=frozenset(tapes),
            )
            for first, last, nodes, outputs, gradients, tapes in found["computed"]
        ),
        owned=_shards(found["owned"]),
        shadows=_shards(found["shadows"]),
        prepared={shard_of(name): digest for name, digest in found["prepared"].items()},
        parameters=_shards(found["parameters"]),
    )


def dump_evidence(evidence: Evidence) -> dict[str, Any]:
    copies = {named(s): [copy.version, dict(copy.slots)] for s, copy in evidence.copies.items()}
    return {
        "worker": evidence.worker,
        "spine": evidence.spine,
        "layout": evidence.layout,
        "arithmetic": evidence.arithmetic,
        "step": evidence.step,
        "copies": copies,
    }


def load_evidence(found: Mapping[str, Any]) -> Evidence:
    copies = {
        shard_of(name): Copy(version=version, slots=slots)
        for name, (version, slots) in found["copies"].items()
    }
    return Evidence(**{**found, "copies": copies})


def _versions(versions: Mapping[VShard, int]) -> dict[str, int]:
    return {named(shard): version for shard, version in versions.items()}


def _shards(versions: Mapping[str, int]) -> dict[VShard, int]:
    return {shard_of(name): version for name, version in versions.items()}

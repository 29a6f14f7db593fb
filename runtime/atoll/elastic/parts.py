"""What is at the URL of an elastic island's checkpoints: parts, and which of them are whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from atoll.checkpoint import read
from atoll.checkpoint.places import Place, open_place
from atoll.checkpoint.read import Entry
from atoll.checkpoint.shards import worker_folder_of
from atoll.errors import CheckpointError

MOST_PARTS = 1024
"""An island is not larger than this."""

Stamp = tuple[int, str]
"""Which checkpoint: (step, digest of the layout whose workers wrote it)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part that is there."""

    place: Place
    entry: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """whole: checkpoints of which all parts are there, newest first, with their parts in order.
    torn: how many others there are. lost: a part knows of a whole one before it, or is damaged: it
    was there."""

    whole: dict[Stamp, list[Part]]
    torn: int
    lost: bool


def place_of(url: str, number: int) -> Place:
    """Where the parts of a layout's worker of this number are."""
    return open_place(f"{url}/{worker_folder_of(number)}")


def survey(url: str, check: Callable[[Place, list[Entry]], None]) -> Survey:
    """check: of the entries of one place; what it raises goes on to the caller. Parts whose
    manifest cannot be read are not there. Raises CheckpointError when the URL cannot be listed."""
    parts: dict[Stamp, dict[int, Part]] = {}
    counts: dict[Stamp, int] = {}
    damaged: set[int] = set()
    known = 0
    number = last = 0
    while number <= last and number < MOST_PARTS:
        place = place_of(url, number)
        try:
            entries = read.survey(place)
        except OSError as error:
            raise CheckpointError(
                f"{place.url}: the checkpoints cannot be listed: {error.strerror or error}; "
                "nothing was started, so that the run does not begin anew by mistake"
            ) from error
        check(place, entries)
        for entry in entries:
            if entry.manifest is None:
                damaged.add(entry.round)
                continue
            values = entry.manifest.values
            stamp = (entry.round, str(values["layout"]))
            parts.setdefault(stamp, {}).setdefault(number, Part(place=place, entry=entry))
            counts[stamp] = int(values["parts"])
            known = max(known, int(values.get("whole", 1)))  # what does not say so may know of one
            last = max(last, counts[stamp] - 1)
        number += 1
    whole = {
        stamp: [own[n] for n in range(counts[stamp])]
        for stamp, own in parts.items()
        if own.keys() >= set(range(counts[stamp]))
    }
    created = {s: max(p.entry.known.created_s for p in own) for s, own in whole.items()}
    order = sorted(whole, key=lambda stamp: (stamp[0], created[stamp]), reverse=True)
    return Survey(
        whole={stamp: whole[stamp] for stamp in order},
        torn=len(parts.keys() - whole.keys()) or len(damaged),
        lost=known > 0 or bool(damaged),
    )

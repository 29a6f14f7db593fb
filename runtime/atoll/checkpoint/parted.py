"""Checkpoints of an island of several processes, as one of its shards sees them: it writes its own
part, and begins from a checkpoint of which all shards can read theirs. docs/checkpoints.md.

Thread: `restore` is the user's; what writes is the checkpoint thread's.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

from atoll.checkpoint import read as reading
from atoll.checkpoint import shards as rules
from atoll.checkpoint.manifest import Part
from atoll.checkpoint.meeting import Meeting
from atoll.checkpoint.places import open_place
from atoll.checkpoint.read import Damaged, Entry, Restored, Targets
from atoll.checkpoint.rules import Known, round_of
from atoll.checkpoint.write import Written, delete, problem_with
from atoll.errors import CheckpointError

logger = logging.getLogger(__name__)

Begin = Callable[[dict[str, Any]], Targets]


class Parted:
    """Of one shard."""

    def __init__(self, url: str, shard: int, shards: int, meeting: Meeting) -> None:
        """meeting: with the other shards of the island. Raises ConfigError."""
        self._root = open_place(url)
        self._places = [
            open_place(f"{url.rstrip('/')}/{rules.folder_of(number, shards)}")
            for number in range(shards)
        ]
        self.shard, self.shards = shard, shards
        self.place = self._places[shard]
        """Where this shard's parts are."""
        self.line = ""
        """Of what `restore` has begun."""
        self._meeting = meeting

    # --- writing ----------------------------------------------------------------------------------

    def part(self, line: str) -> Part:
        """What the next part says of itself. Raises OSError."""
        whole = max((version.round for version in self._whole()), default=0)
        return Part(shard=self.shard, shards=self.shards, line=line, whole=whole)

    def is_whole(self, written: Written) -> bool:
        """Whether the other shards have written theirs, too. Of those that write at the same time
        the last one, at least, sees it. Raises OSError."""
        return any(written.name in version.names for version in self._whole())

    def retire(self, written: Written, keep: int) -> list[str]:
        """Deletes those parts of this shard that no common checkpoint needs; returns the names.

        Raises OSError, and deletes nothing but the one just written, when that cannot be read back:
        the others are not to count on it.
        """
        problem = problem_with(self.place, written)
        if problem is not None:
            there = self.place.names()
            if written.name not in there and any(name > written.name for name in there):
                logger.info("%s was deleted by a writer that is ahead", written.name)
                return []
            delete(self.place, [written.name])
            raise OSError(problem)
        assert written.manifest.part is not None  # `part` made it
        line = written.manifest.part.line
        entries = reading.survey(self.place)
        names = [place.names() for place in self._places]
        bad = {entry.name for entry in entries if entry.manifest is None}
        names[self.shard] = [name for name in names[self.shard] if name not in bad]
        gone = rules.expendable(
            names,
            shard=self.shard,
            keep=keep,
            sure=written.name,
            line=[entry.name for entry in entries if _line_of(entry) == line],
        )
        newest_gone = max((round_of(name) or 0 for name in gone), default=0)
        gone += [name for name in bad if (round_of(name) or 0) <= newest_gone]
        delete(self.place, gone)
        self.place.clean()
        return gone

    def _whole(self) -> list[rules.Version]:
        listed = [
            [Known(name=name, round=round_of(name) or 0, created_s=0.0) for name in place.names()]
            for place in self._places
        ]
        return rules.versions(listed)

    # --- reading ----------------------------------------------------------------------------------

    def restore(
        self, *, job: str, newer_than: int, begin: Begin, on_damaged: Callable[[str, str], None]
    ) -> Restored | None:
        """The newest checkpoint of which all shards can read their parts; as `reading.restore`.

        All shards of the island call it, and return the same round, or raise. Sets `line`.
        """
        entries: dict[str, Entry] = {}

        def found() -> dict[str, Any]:
            entries.update((entry.name, entry) for entry in self._survey(job))
            return _as_json(list(entries.values()), newer_than)

        told = self._meeting.gather(found)
        self.line = rules.line_of(each["token"] for each in told)
        listings = [_listing(each) for each in told]
        choice = rules.choose(listings)
        if choice.problem:
            raise CheckpointError(
                f"{self._root.url}: {choice.problem}; bring it back from a backup, or name another "
                "URL to begin anew"
            )
        newest = choice.versions[0].round if choice.versions else newer_than
        for round_, missing in rules.torn([listing.parts for listing in listings]):
            if round_ > newest:
                lacking = ", ".join(map(str, missing))
                logger.warning("round %d: no part of shard %s; passed over", round_, lacking)
        restored = self._first_whole(choice.versions, entries, begin, on_damaged)
        if restored is not None or not choice.versions or choice.may_keep:
            return restored
        raise CheckpointError(
            f"{self._root.url}: none of the {len(choice.versions)} checkpoints is whole; bring one "
            "back from a backup, or name another URL to begin anew"
        )

    def _first_whole(
        self,
        versions: tuple[rules.Version, ...],
        entries: dict[str, Entry],
        begin: Begin,
        on_damaged: Callable[[str, str], None],
    ) -> Restored | None:
        damaged: list[tuple[str, str]] = []
        for version in versions:
            entry = entries[version.names[self.shard]]
            problems = self._meeting.gather(partial(self._problem, entry, begin))
            wrong = [(shard, problem) for shard, problem in enumerate(problems) if problem]
            if not wrong:
                assert entry.manifest is not None  # it was loaded
                return Restored(name=entry.name, manifest=entry.manifest, damaged=tuple(damaged))
            shard, problem = wrong[0]
            damaged.append((version.names[shard], problem))
            if problems[self.shard]:
                on_damaged(entry.name, problems[self.shard])
            else:
                text = "round %d: the part of shard %d is damaged (%s); taking the one before"
                logger.error(text, version.round, shard, problem)
        return None

    def _survey(self, job: str) -> list[Entry]:
        """Raises ConfigError for parts of another job, or of another number of shards;
        CheckpointError."""
        reading.require_shards(self._root, self.shards)
        entries = reading.listed(self.place, lambda: reading.survey(self.place))
        reading.require_job(self.place, entries, job)
        return [self._own(entry) for entry in entries]

    def _own(self, entry: Entry) -> Entry:
        """A folder that was copied under another's name is damage."""
        part = entry.manifest.part if entry.manifest is not None else None
        if entry.manifest is None or (
            part is not None and (part.shard, part.shards) == (self.shard, self.shards)
        ):
            return entry
        whose = "of no shard" if part is None else f"of shard {part.shard} of {part.shards}"
        return Entry(name=entry.name, manifest=None, problem=f"the manifest is {whose}")

    def _problem(self, entry: Entry, begin: Begin) -> str:
        """What is wrong with a part; "": it is in its place."""
        try:
            reading.load(self.place, entry, begin)
        except Damaged as error:
            return str(error)
        return ""


def _as_json(entries: list[Entry], held: int) -> dict[str, Any]:
    parts = [entry.manifest.part for entry in entries if entry.manifest is not None]
    return {
        "token": secrets.token_hex(8),
        "held": held,
        "whole": max((part.whole for part in parts if part is not None), default=0),
        "parts": [
            [entry.name, entry.known.created_s, entry.manifest is not None] for entry in entries
        ],
    }


def _listing(told: dict[str, Any]) -> rules.Listing:
    return rules.Listing(
        held=told["held"],
        whole=told["whole"],
        parts=tuple(
            Known(name=name, round=round_of(name) or 0, created_s=created_s, sound=sound)
            for name, created_s, sound in told["parts"]
        ),
    )


def _line_of(entry: Entry) -> str | None:
    manifest = entry.manifest
    return None if manifest is None or manifest.part is None else manifest.part.line

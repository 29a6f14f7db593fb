"""Python tracebacks in what islands print: find the error, and show equal ones only once."""

from __future__ import annotations

from collections.abc import Sequence

_LAST_WORD = "atoll: "
_BEGIN = "Traceback (most recent call last):"
_FILE = '  File "'
# A block that does not end is no traceback.
_LONGEST = 200


def last_word(lines: Sequence[str]) -> str:
    """Return what a script has said in place of a traceback (atoll.last_words); empty: nothing."""
    begin = max((i for i, line in enumerate(lines) if line.startswith(_LAST_WORD)), default=-1)
    if begin < 0 or any(line.startswith((_BEGIN, _FILE)) for line in lines[begin:]):
        return ""
    return lines[begin].removeprefix(_LAST_WORD)


def error_line(lines: Sequence[str]) -> str:
    """Return the line that names the exception of the last traceback; empty when there is none."""
    if said := last_word(lines):
        return said
    begin = max((i for i, line in enumerate(lines) if line.startswith((_BEGIN, _FILE))), default=-1)
    if begin < 0:
        return ""
    for line in lines[begin + 1 :]:
        if line and not line[0].isspace():
            return line
    return ""


def traceback_lines(lines: Sequence[str]) -> list[str]:
    """Return the last traceback with its error line; the last few lines when there is none."""
    if said := last_word(lines):
        return [f"{_LAST_WORD}{said}"]
    begins = [i for i, line in enumerate(lines) if line.startswith(_BEGIN)]
    begins = begins or [i for i, line in enumerate(lines) if line.startswith(_FILE)][:1]
    if not begins:
        return list(lines[-5:])
    return list(lines[begins[-1] :])


class Folder:
    """Lines of islands in, lines to show out: a traceback equal to the last one is folded."""

    def __init__(self) -> None:
        self._held: dict[str, list[str]] = {}
        self._shown: tuple[str, list[str]] | None = None

    def feed(self, island: str, line: str) -> list[str]:
        """Take a line; return what can be shown of this island now."""
        held = self._held.get(island)
        if held is None:
            if not line.startswith((_BEGIN, _FILE)):
                return [line]
            self._held[island] = [line]
            return []
        held.append(line)
        if line.startswith((" ", "\t")) or not line:
            return self._release(island) if len(held) > _LONGEST else []
        return self._release(island)

    def flush(self, island: str) -> list[str]:
        """Return what is held back of an island that has ended."""
        return self._held.pop(island, [])

    def _release(self, island: str) -> list[str]:
        block = self._held.pop(island)
        if self._shown is not None and self._shown[1] == block:
            return [f"{block[-1]} (same traceback as {self._shown[0]})"]
        self._shown = (island, block)
        return block

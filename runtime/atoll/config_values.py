"""One value of a setting, from a variable's text or from TOML, as the type of its field. Pure."""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

_BOOLEANS = {"1": True, "true": True, "yes": True, "on": True} | {
    "0": False, "false": False, "no": False, "off": False,
}  # fmt: skip


def converted(raw: object, hint: Any, is_text: bool) -> object:
    """Return `raw` as the type `hint`; only text from the environment (`is_text`) is parsed.

    Types: str, int, float, bool, Path, and each with `| None`. Raises ValueError with what was
    expected.
    """
    if isinstance(hint, types.UnionType):
        if raw is None:
            return None
        (hint,) = (part for part in hint.__args__ if part is not type(None))
    if hint is bool:
        if is_text and isinstance(raw, str) and raw.lower() in _BOOLEANS:
            return _BOOLEANS[raw.lower()]
        if isinstance(raw, bool):
            return raw
        raise ValueError("expected true or false")
    if hint is int:
        if is_text and isinstance(raw, str):
            return _parsed(int, raw, "expected a whole number")
        if isinstance(raw, int) and not isinstance(raw, bool):
            return raw
        raise ValueError("expected a whole number")
    if hint is float:
        number = _parsed(float, raw, "expected a number") if is_text else raw
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            if not math.isfinite(number):
                raise ValueError("expected a finite number")
            return float(number)
        raise ValueError("expected a number")
    if hint is Path and isinstance(raw, (str, Path)):
        return Path(raw)
    if hint is str and isinstance(raw, str):
        return raw
    raise ValueError("expected text" if hint in (str, Path) else f"cannot load a {hint}")


def _parsed(parse: Callable[[Any], object], raw: object, message: str) -> object:
    try:
        return parse(raw)
    except ValueError:
        raise ValueError(message) from None

"""Streaming DiLoCo's fragments and schedule: which part of a model is exchanged at which step.

Pure functions of names and integers, so that all members name the same fragment at the same step
without a word (arXiv 2501.18512, section 3.1 and algorithm 2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from atoll.errors import MisuseError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Order = Literal["strided", "sequential"]


def block_of(name: str) -> tuple[str, int] | None:
    """The block that a parameter belongs to, (list of blocks, index); None: to none.

    The first number in a dotted name says it: `blocks.3.mlp.0.weight` is of ("blocks", 3).
    """
    parts = name.split(".")
    for place, part in enumerate(parts):
        if part.isascii() and part.isdigit():
            return ".".join(parts[:place]), int(part)
    return None


def fragments(
    names: Sequence[str], count: int, *, order: Order = "strided"
) -> tuple[tuple[str, ...], ...]:
    """Parameters' names by fragment: `count` fragments of whole blocks, then one of all the rest.

    strided: block l is in fragment l mod count. sequential: consecutive blocks share one, the
    first ones holding a block more where count does not divide. What is no block (embeddings,
    final norm, head) is one fragment of its own, the last, if there is any. Names keep their
    order. Section 3.1 (figure 3). Raises MisuseError for fewer blocks than fragments.
    """
    blocks: dict[tuple[str, int], list[str]] = {}
    rest: list[str] = []
    for name in names:
        block = block_of(name)
        if block is None:
            rest.append(name)
        else:
            blocks.setdefault(block, []).append(name)
    if count < 1:
        raise MisuseError(f"fragments must be at least 1, not {count}")
    if count > len(blocks):
        raise MisuseError(
            f"{count} fragments of whole blocks need {count} blocks, the model has {len(blocks)}; "
            f"take at most {max(1, len(blocks))}"
        )
    parts: list[list[str]] = [[] for _ in range(count)]
    for index, members in enumerate(blocks.values()):
        match order:
            case "strided":
                place = index % count
            case "sequential":
                place = _sequential(index, len(blocks), count)
            case _:
                raise MisuseError(f'order must be "strided" or "sequential", not "{order}"')
        parts[place] += members
    return tuple(tuple(part) for part in [*parts, rest] if part)


def _sequential(index: int, blocks: int, count: int) -> int:
    """The part of a block when the first blocks % count parts hold one block more."""
    size, longer = divmod(blocks, count)
    head = longer * (size + 1)
    return index // (size + 1) if index < head else longer + (index - head) // size


def offsets(count: int, period: int) -> tuple[int, ...]:
    """t_p = floor(p * H / P), in steps, for P = count fragments and H = period."""
    return tuple(index * period // count for index in range(count))


def check_schedule(count: int, *, period: int, overlap: int) -> None:
    """Raises MisuseError for a schedule in which exchanges would run into one another."""
    if period < 1:
        raise MisuseError(f"sync_every must be at least 1, not {period}")
    if count > period:
        raise MisuseError(
            f"{count} fragments cannot be exchanged at different steps of a period of {period}; "
            f"sync_every must be at least {count}"
        )
    if not 0 <= overlap < period:
        raise MisuseError(
            f"an exchange must end before its fragment's next one begins: overlap must be in "
            f"[0, {period}), the period, not {overlap}"
        )


def starts(step: int, *, offset: int, period: int) -> bool:
    """Whether the exchange of the fragment at `offset` (t_p) starts after inner step `step`.

    (t - t_p) mod H == 0 and t - t_p >= H; steps count from 1. Algorithm 2, line 5.
    """
    age = step - offset
    return age >= period and age % period == 0


def applies(step: int, *, offset: int, period: int, overlap: int) -> bool:
    """Whether the exchange that started `overlap` (tau) steps ago is applied after `step`.

    (t - t_p - tau) mod H == 0. Algorithm 2, line 10.
    """
    return starts(step - overlap, offset=offset, period=period)


def due(
    step: int, offsets: Sequence[int], *, period: int, overlap: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(fragments whose exchange starts, fragments whose exchange is applied) after `step`.

    With overlap 0 a fragment is in both: start it first.
    """
    return (
        tuple(p for p, at in enumerate(offsets) if starts(step, offset=at, period=period)),
        tuple(
            p
            for p, at in enumerate(offsets)
            if applies(step, offset=at, period=period, overlap=overlap)
        ),
    )


def mixed(theta_local: Tensor, new: Tensor, *, alpha: float) -> Tensor:
    """alpha * theta_local + (1 - alpha) * new, both of one shape: the local copy after an exchange.

    alpha 1: as though there had been no exchange; 0: the overlapped steps are thrown away. The
    outer copy takes `new` unmixed. Equation 3.
    """
    return alpha * theta_local + (1 - alpha) * new

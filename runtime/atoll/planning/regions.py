"""Warnings: settings outside the region in which a method does what it promises. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator

from atoll import _core
from atoll.planning.job import ADVISED_OVERLAP, SPARSE_CHUNK, Choice, Job, fragments
from atoll.planning.network import Network

MAX_MEMBERS = 4096
"""As in csrc/atoll/base/limits.h: a view has no more."""
_INT8_BITS = 8
_USEFUL_KEPT = (32, 128)
_SAMPLE = 1 << 20


def break_even_members(choice: Choice) -> int:
    """The most members at which SparseLoCo's all-gather sends less than an int8 ring all-reduce.

    (N-1) * b < 2 (N-1)/N * 8 bits of a parameter, so N < 16 / b: 73 for 64 of 4,096 numbers.
    """
    return int(2 * _INT8_BITS / choice.sparse_bits)


def warnings(job: Job, choice: Choice, network: Network) -> list[str]:
    """One clear sentence each."""
    found = list(_of_schedule(job, choice))
    if choice.method == "sparseloco" and choice.bits is None:
        found += _of_density(choice, network.islands)
    if network.islands > MAX_MEMBERS:
        found.append(
            f"{network.islands} islands: a view holds at most {MAX_MEMBERS}; "
            "this is what the formulas say beyond it"
        )
    return found


def _of_schedule(job: Job, choice: Choice) -> Iterator[str]:
    method, every, overlap = choice.method, choice.every, choice.overlap
    if method == "data-parallel" and overlap:
        yield (
            f"data-parallel with overlap {overlap} steps with gradients that are {overlap} steps "
            "old: that is another method"
        )
    elif overlap >= every:
        yield (
            f"overlap {overlap} is not below every {every}: an exchange would be waited for after "
            f"the fragment's next one has begun; the runtime refuses it, take at most {every - 1}"
        )
    elif method == "streaming" and overlap > ADVISED_OVERLAP:
        yield f"overlap {overlap}: at most {ADVISED_OVERLAP} is advised, loss suffers above"
    if method != "streaming":
        return
    if choice.fragment_layers > job.layers:
        yield (
            f"fragments of {choice.fragment_layers} layers, and the model has {job.layers}: "
            "all layers are one fragment"
        )
    count = len(fragments(job, choice))
    if count > every:
        yield (
            f"{count} fragments in {every} steps: several would be exchanged at one step, which "
            f"the runtime refuses; take larger fragments or every {count}"
        )


def _of_density(choice: Choice, islands: int) -> Iterator[str]:
    bits = choice.sparse_bits
    low, high = _USEFUL_KEPT
    dense = {name: _bits(name) for name in ("two_bit", "fp4", "int8")}
    cheaper = [name for name, width in dense.items() if width <= bits]
    if cheaper:
        yield (
            f"{choice.kept} of {SPARSE_CHUNK} numbers kept take {bits:.3g} bits a parameter; dense "
            f"{cheaper[0]} takes {dense[cheaper[0]]:.3g}"
        )
    elif not low <= choice.kept <= high:
        yield (
            f"{choice.kept} of {SPARSE_CHUNK} numbers kept: {low} to {high} is the range in which "
            "SparseLoCo was found to train well"
        )
    most = break_even_members(choice)
    if islands > most:
        yield (
            f"above {most} members SparseLoCo's all-gather sends more than an int8 ring "
            f"all-reduce, and there are {islands}"
        )


def _bits(codec: str) -> float:
    return 8 * _core.encoded_bytes(codec, _SAMPLE) / _SAMPLE

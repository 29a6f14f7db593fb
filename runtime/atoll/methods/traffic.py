"""What each method sends, by formula: payload bytes of one island in one round.

numel: the model's parameters; members: islands, N. Frames and headers (docs/collectives.md) come on
top: 48 bytes a chunk, 144 an op and other member.
"""

from __future__ import annotations

FP32_BYTES = 4


def all_reduce_bytes(encoded: float, members: int) -> float:
    """2 (N - 1) / N S: ring or direct, on the average member; S = encoded bytes of the vector."""
    return 2 * (members - 1) / members * encoded


def reduce_scatter_bytes(encoded: int, members: int) -> float:
    """(N - 1) / N S: every member's part goes to its owner once."""
    return (members - 1) / members * encoded


def all_gather_bytes(own: int, members: int) -> float:
    """(N - 1) times the own block, of `own` bytes."""
    return float((members - 1) * own)


def data_parallel_bytes(numel: int, members: int, *, steps: int = 1) -> float:
    """An fp32 all-reduce of the gradients at each of `steps` steps."""
    return steps * all_reduce_bytes(FP32_BYTES * numel, members)


def diloco_bytes(encoded: int, members: int) -> float:
    """One all-reduce, blocking, delayed or eager (arXiv 2311.08105, 2502.12996); in fp32 `encoded`
    is 4 numel."""
    return all_reduce_bytes(encoded, members)


def streaming_bytes(encoded: int, members: int) -> float:
    """Of one fragment, whose unreduced Delta has `encoded` bytes, as the paper exchanges it: an
    all-gather, so that every member adds up in fp32 what was quantized once (arXiv 2501.18512). An
    all-reduce with a codec sends 2/N of that, and quantizes the mean again."""
    return all_gather_bytes(encoded, members)


def noloco_bytes(numel: int, *, partners: int = 1) -> float:
    """Delta and phi to the partner: 2 numel fp32 each way, of which phi goes during the inner
    phase (arXiv 2506.10911). partners: 2 in a group of three."""
    return float(partners * 2 * FP32_BYTES * numel)


def sparseloco_bytes(payload: int, members: int) -> float:
    """An all-gather of the payload (arXiv 2508.15706; `sparse.SparseLayout.payload_bytes`)."""
    return all_gather_bytes(payload, members)

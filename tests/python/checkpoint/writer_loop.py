"""A process that writes one checkpoint after another, to be killed in the middle of one."""

from __future__ import annotations

import os
import resource
from multiprocessing.connection import Connection

import torch

import states
from atoll.checkpoint import rules
from atoll.checkpoint.places import open_place
from atoll.checkpoint.read import survey
from atoll.checkpoint.write import retire

SCALE = 20


def loop(url: str, said: Connection, keep: int) -> None:
    """Says that it has begun, then each round that is durable, one line each; never returns."""
    os.write(said.fileno(), b"begun\n")
    torch.set_num_threads(1)
    rules.PART_BYTES = 400_000  # several files
    place = open_place(url)
    round_ = max((entry.round for entry in survey(place)), default=0)
    while True:
        round_ += 1
        written = states.save(place, round_, SCALE)
        os.write(said.fileno(), b"%d\n" % round_)
        retire(place, written, keep)


def limited(url: str, nbytes: int, answer: Connection) -> None:
    """Writes one checkpoint with files that may not be larger than `nbytes`; answers with the
    error."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, nbytes))
    try:
        states.save(open_place(url), 20)
    except OSError as error:
        os.write(answer.fileno(), str(error).encode())

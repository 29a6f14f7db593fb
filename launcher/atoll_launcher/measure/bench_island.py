"""One island's part in a benchmark: join the job, measure with the others, say what came out.

As a script, `python bench_island.py RESULT REQUEST`: the oldest island writes the measurements to
the file RESULT as JSON; an island that cannot go on writes why, unless another one has.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from atoll.errors import AtollError
from atoll.measure import AllReduce, Measurement, measure_all_reduce
from atoll_launcher.measure.bench_request import Request

_SHARED_MEMORY = {"tcp": "0", "shm": "1"}


def measure(
    request: Request, on_measured: Callable[[int], None] | None = None
) -> list[Measurement] | None:
    """Join the job that ATOLL_* names and measure; the oldest island gets the results.

    `on_measured(count)` is called on the oldest when so many of the series are over. Raises
    AtollError.
    """
    if request.transport in _SHARED_MEMORY:
        os.environ["ATOLL_SHARED_MEMORY"] = _SHARED_MEMORY[request.transport]
    import torch

    import atoll

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    measurements = []
    with atoll.join({"metrics_port": -1}) as session:
        for what in request.series:
            measurements.append(measure_all_reduce(session, what))
            if on_measured is not None and session.rank == 0:
                on_measured(len(measurements))
        is_oldest = session.rank == 0
    return measurements if is_oldest else None


def write_results(path: Path, measurements: list[Measurement]) -> None:
    """Write what was measured, all of it or nothing."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"measured": [dataclasses.asdict(one) for one in measurements]}))
    part.replace(path)


def read_results(path: Path) -> list[Measurement]:
    """Return what `write_results` wrote; raise AtollError with what an island complained of."""
    document = json.loads(path.read_text())
    if "error" in document:
        raise AtollError(document["error"])
    return [
        Measurement(
            **{
                **one,
                "what": AllReduce(**one["what"]),
                "times_s": tuple(tuple(times) for times in one["times_s"]),
                "sent_bytes": tuple(one["sent_bytes"]),
                "began_s": tuple(one["began_s"]),
            }
        )
        for one in document["measured"]
    ]


def main(arguments: list[str]) -> int:
    """Measure and write; the exit code is for the launcher."""
    result, request = Path(arguments[0]), Request.from_json(arguments[1])
    try:
        measurements = measure(request, lambda count: print(f"measured {count}", flush=True))
    except AtollError as error:
        with contextlib.suppress(FileExistsError), result.open("x") as file:
            json.dump({"error": str(error)}, file)
        print(f"atoll: {error}", file=sys.stderr)
        return 1
    if measurements is not None:
        write_results(result, measurements)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

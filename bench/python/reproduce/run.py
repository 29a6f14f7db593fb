"""What the low-communication methods lose, and what they save, on a tiny GPT; one command each.

    make reproduce-diloco            (also -streaming -noloco -sparseloco -eager -churn -lgreco)
    python bench/python/reproduce/run.py all --device cuda --jobs 8

Four islands in one process, on CPU or an accelerator: the same functions, codecs and kernels as in
the runtime, without its network. Every run (method, seed) writes one JSON file under --out; those
that are there already, with the same settings, are not run again. Then `report.py` makes a page of
them, docs/results.md by default. Needs Python 3.11, torch and NumPy; without atoll's built core
NumPy takes its place.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from settings import EXPERIMENTS, FULL, RUNS, SEEDS, SMOKE, Size

OUT = Path(__file__).resolve().parents[3] / "docs/results"


def file_of(out: Path, name: str, seed: int) -> Path:
    return out / f"{name}-seed{seed}.json"


def present(path: Path, name: str, size: Size) -> bool:
    """Whether the file holds this run with these settings."""
    if not path.is_file():
        return False
    found = json.loads(path.read_text())
    wanted = json.loads(json.dumps({"run": asdict(RUNS[name]), "size": asdict(size)}))
    return all(found.get(key) == value for key, value in wanted.items())


def save(path: Path, found: dict[str, Any]) -> None:
    part = path.with_suffix(".tmp")
    part.write_text(json.dumps(found, indent=1) + "\n")
    part.rename(path)


def one(name: str, seed: int, size: Size, device: str, threads: int) -> dict[str, Any]:
    """In a process of its own."""
    import torch
    import train

    torch.set_num_threads(threads)
    if name == "lgreco":
        return train.gradients_of(seed, size, torch.device(device), RUNS[name].options["gradients"])
    return train.train(name, seed, size, torch.device(device))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("experiments", nargs="+", choices=[*EXPERIMENTS, "all"])
    parser.add_argument("--smoke", action="store_true", help="minutes on two cores; proves nothing")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--runs", nargs="+", choices=RUNS, help="only these of the experiments")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one process each")
    parser.add_argument("--threads", type=int, default=1, help="of torch, in each process")
    parser.add_argument("--out", type=Path, default=None, help="default: docs/results")
    parser.add_argument(
        "--set", type=setting, action="append", default=[], metavar="NAME=VALUE", help="of the size"
    )
    return parser.parse_args()


def setting(text: str) -> tuple[str, float | int]:
    """One of Size's numbers."""
    name, _, value = text.partition("=")
    kinds = {each.name: each.type for each in fields(Size)}
    if kinds.get(name) not in ("int", "float"):
        raise argparse.ArgumentTypeError(f"no number of the size is called {name!r}")
    return name, float(value) if kinds[name] == "float" else int(value)


def main() -> int:
    arguments = parsed()
    import torch

    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    size = replace(SMOKE if arguments.smoke else FULL, **dict(arguments.set))
    out: Path = arguments.out or (Path("build-reproduce-smoke") if arguments.smoke else OUT)
    out.mkdir(parents=True, exist_ok=True)
    experiments = EXPERIMENTS if "all" in arguments.experiments else arguments.experiments
    names = dict.fromkeys(name for each in experiments for name in EXPERIMENTS[each].runs)
    tasks = [
        (name, seed)
        for seed in arguments.seeds
        for name in names
        if (arguments.runs is None or name in arguments.runs)
        and not present(file_of(out, name, seed), name, size)
    ]
    import kernels
    import report

    print(f"{len(tasks)} runs on {device}, {arguments.jobs} at a time; core: {kernels.CORE}")
    if kernels.CORE == "numpy":
        print("atoll._core is not built here: NumPy does the kernels' arithmetic, to the same bits")
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    began = time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.jobs, mp_context=spawn) as pool:
        waiting = {
            pool.submit(one, name, seed, size, device, arguments.threads): (name, seed)
            for name, seed in tasks
        }
        failed = 0
        for done, future in enumerate(as_completed(waiting), start=1):
            name, seed = waiting[future]
            if error := future.exception():
                failed += 1
                result = f"FAILED: {type(error).__name__}: {error}"
            else:
                found = future.result()
                save(file_of(out, name, seed), found)
                loss = found.get("validation_loss")
                result = "allocated" if loss is None else f"loss {loss:.4f}"
                result += f", {found['seconds']:.0f} s"
            passed = time.monotonic() - began
            print(f"[{done}/{len(tasks)}, {passed:.0f} s] {name} seed {seed}: {result}", flush=True)
    report.write(out, out.parent / "results.md" if out == OUT else out / "results.md")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

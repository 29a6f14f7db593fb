"""One run: a method, a seed, to the end of the tokens; what comes back goes into its JSON file."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import time
from pathlib import Path
from typing import Any

import kernels
import lgreco
import torch
from islands import Data, Islands
from rules import Rule, rule_of
from settings import RUNS, Size


def learning_rate(peak: float, progress: float, size: Size) -> float:
    """Linear warm-up, then a cosine to last_lr of the peak; by tokens, not by steps."""
    if progress < size.warmup:
        return peak * (progress + 1e-3) / (size.warmup + 1e-3)
    through = (progress - size.warmup) / (1 - size.warmup)
    return peak * (size.last_lr + (1 - size.last_lr) * (1 + math.cos(math.pi * through)) / 2)


def machine(device: torch.device) -> dict[str, Any]:
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((x.split(": ")[1] for x in lines if x.startswith("model name")), "CPU")
    return {
        "device": device.type,
        "name": name,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "core": kernels.CORE,
    }


def train(name: str, seed: int, size: Size, device: torch.device) -> dict[str, Any]:
    """Trains and evaluates; everything that the result depends on is in it."""
    run = RUNS[name]
    torch.set_float32_matmul_precision("high")
    data = Data(size, seed, device)
    islands = Islands(size, seed, run.lr, device)
    samples = size.steps * size.islands * size.batch
    used = step = 0
    curve: list[dict[str, float]] = []
    began = time.monotonic()
    while used < size.pretrain * samples:  # as all methods do, data parallel
        tokens = data.take(used, size.islands, size.batch)
        islands.inner_step(tokens, learning_rate(run.lr, used / samples, size), averaged=True)
        used += size.islands * size.batch
    islands.first = islands.gather()[0]
    rule = rule_of(islands, run, seed)
    while used < samples:
        count = len(islands.active)
        tokens = data.take(used, count, size.batch)
        lr = learning_rate(run.lr, used / samples, size)
        losses = islands.inner_step(tokens, lr, averaged=rule.averaged)
        used += count * size.batch
        step += 1
        rule.after(step, used / samples)
        if used * size.evaluations // samples > len(curve):
            curve.append(
                {
                    "progress": used / samples,
                    "step": step,
                    "train": float(losses.mean()),
                    "validation": mean(islands.validation_losses(rule.models(), data)),
                }
            )
    trained_s = time.monotonic() - began
    replicas = islands.validation_losses(rule.models(), data)
    found = {
        "name": name,
        "seed": seed,
        "run": dataclasses.asdict(run),
        "size": dataclasses.asdict(size),
        "parameters": islands.numel,
        "corpus": data.fingerprint,
        "passes": data.passes,
        "machine": machine(device),
        "steps": step,
        "tokens": samples * size.block,
        "rounds": rule.rounds,
        "sent_bytes": rule.bytes,
        "validation_loss": mean(replicas),
        "replica_losses": replicas,
        "curve": curve,
        "spread": rule.spread,
        "seconds": trained_s,
        "seconds_per_step": trained_s / step,
    }
    return {**found, **extras(rule, islands, data)}


def extras(rule: Rule, islands: Islands, data: Data) -> dict[str, Any]:
    layout = getattr(rule, "layout", None)
    found: dict[str, Any] = {}
    if layout is not None:
        found["payload_bytes"] = layout.payload_bytes
    return found


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def gradients_of(seed: int, size: Size, device: torch.device, count: int) -> dict[str, Any]:
    """L-GreCo's table: at the end of a quarter of a data-parallel training, from the mean gradient
    of `count` batches."""
    run = RUNS["lgreco"]
    torch.set_float32_matmul_precision("high")
    data = Data(size, seed, device)
    islands = Islands(size, seed, run.lr, device)
    began = time.monotonic()
    per_step = size.islands * size.batch
    quarter = size.steps // 4
    for step in range(quarter):
        tokens = data.take(step * per_step, size.islands, size.batch)
        islands.inner_step(tokens, learning_rate(run.lr, step / size.steps, size), averaged=True)
    flat = islands.gather()[0]
    total = torch.zeros_like(flat)
    for batch in range(count):
        tokens = data.take((quarter + batch) * per_step, 1, per_step)[0]
        total += islands.gradient(flat, tokens) / count
    layers = {
        name: total[part].view(shape)
        for (name, part), shape in zip(islands.slices().items(), islands.shapes, strict=True)
    }
    return {
        "name": "lgreco",
        "seed": seed,
        "run": dataclasses.asdict(run),
        "size": dataclasses.asdict(size),
        "parameters": islands.numel,
        "corpus": data.fingerprint,
        "machine": machine(device),
        "tokens": size.steps * per_step * size.block,
        "passes": data.passes,
        "steps": quarter,
        "gradients": count,
        "families": lgreco.families(layers),
        "seconds": time.monotonic() - began,
    }

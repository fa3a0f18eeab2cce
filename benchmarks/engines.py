"""The training step of engine=deepspeed at each stage over that of engine=torch, for 1 and 2 ranks, and saving a state.

    python benchmarks/engines.py [--rounds 5] [--ranks 1 2]

MTLoRA r=16 on Swin-T, semseg and depth, 224 x 224, 4 pictures in all, one thread for each rank. In each group of ranks
the engines take turns; while rank 0 takes the step of engine=torch, on all the pictures, the other waits.

step     median seconds, and over engine=torch of the same group
save     seconds to bring the state together and to write it to disk, and the bytes it has there
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist

from mt_core.build import Entry, ModelSpec, build
from mt_core.dataset import Batch
from mt_core.model import Objective
from mt_core.tasks import Depth, Segmentation
from mtrun.balancers.fixed import Fixed
from mtrun.deepspeed_engine import DeepSpeedEngine
from mtrun.engine import Engine
from mtrun.places import place
from mtrun.ranks import ALONE, Ranks, joined
from mtrun.recipe import TrainerOptions
from mtrun.state import State, States
from mtrun.torch_engine import TorchEngine

TASKS = Segmentation("semseg", 21), Depth("depth")
SIZE, BATCH, CPU = (224, 224), 4, torch.device("cpu")


def data(ranks: Ranks) -> Batch:
    """This rank's part of the pictures."""
    generator, part = torch.Generator().manual_seed(0), BATCH // ranks.world
    labels = {
        "semseg": torch.randint(21, (BATCH, *SIZE), generator=generator),
        "depth": 1 + torch.rand(BATCH, 1, *SIZE, generator=generator),
    }
    images = torch.rand(BATCH, 3, *SIZE, generator=generator)
    mine = slice(ranks.rank * part, (ranks.rank + 1) * part)
    present = dict.fromkeys(labels, torch.ones(part, dtype=torch.bool))
    return Batch([f"{i}" for i in range(part)], images[mine], {n: x[mine] for n, x in labels.items()}, present)


def prepared(engine: Engine, ranks: Ranks) -> Engine:
    """An engine with a model of its own."""
    spec = ModelSpec(
        Entry("swin_tiny"), Entry("mtlora", {"rank": 16}), Entry("hrnet"), tuple(task.to_json() for task in TASKS), SIZE
    )
    balancer = Fixed()
    balancer.start([task.name for task in TASKS], 0, 1)
    objective = Objective(build(spec).model, {})
    engine.prepare(objective, TrainerOptions(batch_size=BATCH), CPU, ranks, balancer)
    return engine


def measure(rounds: int, ranks: Ranks) -> list[str]:
    """The rows of the table."""
    alone = prepared(TorchEngine(), ALONE) if ranks.is_main else None
    stages = {f"deepspeed, stage {stage}": prepared(DeepSpeedEngine(stage=stage), ranks) for stage in range(4)}
    mine, whole = data(ranks), data(ALONE)
    times: dict[str, list[float]] = {name: [] for name in ["torch", *stages]}
    for number in range(rounds + 1):
        for name in times:
            if ranks.world > 1:
                dist.barrier()
            started = time.perf_counter()
            if name != "torch":
                stages[name].step(number, [mine], 1e-4)
            elif alone is not None:
                alone.step(number, [whole], 1e-4)
            if number:
                times[name].append(time.perf_counter() - started)
    rows = []
    for name, found in times.items():
        engine = stages.get(name, alone)
        if engine is not None:
            seconds, size = saved(engine, ranks)
            over = median(found) / median(times["torch"])
            rows.append(f"| {ranks.world} | {name} | {median(found):.2f} | {over:.2f} | {seconds:.3f} | {size:,} |")
    return rows


def saved(engine: Engine, ranks: Ranks) -> tuple[float, int]:
    """Seconds to save a state, and its bytes."""
    started = time.perf_counter()
    snapshot = engine.snapshot()
    if not ranks.is_main:
        return 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        States(Path(folder), 1).save(State(1, {}, snapshot))
        seconds = time.perf_counter() - started
        return seconds, sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def rank(rounds: int) -> None:
    """One of the processes; the main one prints."""
    torch.set_num_threads(1)
    where = place()
    with joined(where, CPU, 10.0) if where else nullcontext(ALONE) as ranks:
        rows = measure(rounds, ranks)
        if ranks.is_main:
            print("\n".join(rows), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank:
        rank(arguments.rounds)
        return
    print("| ranks | engine | s / step | over torch | s to save | bytes |\n|---|---|---|---|---|---|", flush=True)
    for world in arguments.ranks:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        common = {**os.environ, "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        command = [sys.executable, __file__, "--rank", "--rounds", str(arguments.rounds)]
        started = [
            subprocess.Popen(command, env={**common, "RANK": str(number), "LOCAL_RANK": str(number)})
            for number in range(world)
        ]
        codes = [process.wait() for process in started]
        if any(codes):
            sys.exit(1)


if __name__ == "__main__":
    main()

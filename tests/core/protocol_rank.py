"""One of several processes that measure together, as a script: RANK WORLD RENDEZVOUS OUTPUT.

Batch k of every case goes to process k modulo their number. The last process writes what it found, as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from protocol_literals import CASES, DEALS, TASKS, dealt
from torch import distributed
from torchmetrics import MetricCollection

from mt_core.protocols import protocol


def found(rank: int, world: int) -> dict[str, dict[str, float]]:
    """What all processes together find, by protocol, kind of task and deal."""
    results = {}
    for rules, kind in CASES:
        for deal in DEALS:
            collection = MetricCollection(dict(protocol(rules).thorough().metrics(TASKS[kind])))
            for prediction, target in dealt(kind, deal)[rank::world]:
                collection.update(prediction, target)
            results[f"{rules} {kind} {deal}"] = {name: value.item() for name, value in collection.compute().items()}
    return results


if __name__ == "__main__":
    rank, world = int(sys.argv[1]), int(sys.argv[2])
    distributed.init_process_group("gloo", init_method=f"file://{sys.argv[3]}", rank=rank, world_size=world)
    results = found(rank, world)
    if rank == world - 1:
        Path(sys.argv[4]).write_text(json.dumps(results))
    distributed.barrier()
    distributed.destroy_process_group()

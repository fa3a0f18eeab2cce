"""Small runs on one rank and on two, and what they leave in their folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mt_core.artefact import find

TINY = (
    "adapter=mtlora", "adapter.rank=2", "backbone=swin_nano", "decoder=hrnet",
    "decoder.expansion=1", "dataset=trap", "tasks=[semseg,depth]", "trainer.batch_size=2", "trainer.workers=0",
    "trainer.panels=0", "trainer.log_every=1", "trainer.device=cpu", "run_dir=run",
)  # fmt: skip
TWO = ("engine=deepspeed", "engine.stage=2", "launch.ranks=2")


def states(run: Path) -> list[str]:
    """The names of the states that are complete."""
    return sorted(path.parent.name for path in (run / "state").glob("*/manifest.json"))


def state(run: Path, step: int) -> dict[str, Tensor]:
    return load_file(run / "state" / f"step-{step:06d}" / "tensors.safetensors")


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def record(run: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` without times."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in found]


def weights(run: Path) -> dict[str, Tensor]:
    """Those of the best artefact."""
    return load_file(find(run) / "adapter_model.safetensors")

"""Twenty steps with DeepSpeed, on one rank and on two, end where a single process ends on the same global batches.

Everything of a number of ranks is one test: starting ranks costs more than training them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mt_core.discovery import registry

from .several import together

Case = Mapping[str, Any]

TOLERANCE = 1e-5
ADAPTERS = list(registry("adapters"))
STAGES = (0, 1, 2, 3)
MTLORA: dict[str, Any] = {"adapter": "mtlora"}
TORA: dict[str, Any] = {"adapter": "tora"}
SAM: dict[str, Any] = {**TORA, "backbone": "sam_vit_nano", "decoder": "sam_mask", "size": 64, "steps": 5}
LORA: dict[str, Any] = {"adapter": "lora"}
SOME = 8
REMEMBERS_NOTHING = {"weight_decay": 0.0, "betas": [0.0, 0.0], "ema": None}

# What differs from the usual case, and the stages that it is tried at on two ranks; for fewer steps, `SOME`.
OTHERS: list[tuple[dict[str, Any], Sequence[int]]] = [
    ({**MTLORA, "check": "idle", "trainer": REMEMBERS_NOTHING}, (3,)),
    ({**MTLORA, "check": "restored", "steps": 2}, (0, 2, 3)),
    ({**MTLORA, "tasks": 4}, (3,)),
    ({**MTLORA, "trainer": {"clip": None, "ema": None, "optimizer": "adam"}}, (2,)),
    ({**MTLORA, "trainer": {"accumulate": 2}}, (2,)),
    ({**TORA, "norms": False, "trainer": {"accumulate": 2, "tasks_per_pass": 1}}, (3,)),
    ({**MTLORA, "trainer": {"tasks_per_pass": 1}}, (1,)),
    ({**MTLORA, "trainer": {"checkpointing": True}}, (3,)),
    ({**MTLORA, "engine": {"offload_optimizer": True}}, (1,)),
    ({**MTLORA, "engine": {"offload_optimizer": True, "offload_parameters": True}}, (3,)),
    ({**MTLORA, "engine": {"bucket": 4097}}, (2,)),
    ({**LORA, "decoder": "segformer"}, (3,)),
    ({**LORA, "decoder": "aspp"}, (0,)),
    ({**MTLORA, "balancer": "uncertainty"}, (2,)),
    ({**MTLORA, "balancer": "dwa"}, (3,)),
]

# What cannot agree to the last digits, and how far it may be apart.
ROUGH: list[tuple[dict[str, Any], Sequence[int], float]] = [
    ({**MTLORA, "check": "gradients", "exact": False, "tasks": 4, "steps": 1, "trainer": {"clip": None}}, (0, 3), 1e-4),
    ({**MTLORA, "trainer": {"precision": "bf16"}}, (3,), 1e-2),
    ({**MTLORA, "balancer": "pcgrad"}, (0,), 1e-4),
    ({**MTLORA, "balancer": "upgrad"}, (0,), 1e-4),
    ({**MTLORA, "balancer": "gradnorm"}, (0,), 1e-4),
    ({**SAM, "norms": False}, (0, 3), 1e-4),
]

EVERY = [{"adapter": adapter, "stage": stage, "norms": False} for stage in STAGES for adapter in ADAPTERS]
# Every stage has a quarter of the adapters, and two methods have every stage; MT_EXHAUSTIVE=1 tries all of them.
TURNS = {(adapter, STAGES[number % len(STAGES)]) for number, adapter in enumerate(ADAPTERS)}
TURNS |= {(adapter, stage) for adapter in ("mtlora", "tora") for stage in STAGES}
USUAL = [case for case in EVERY if (case["adapter"], case["stage"]) in TURNS]


def distances(cases: Sequence[Case], world: int, folder: Path) -> list[float]:
    given, found = folder / "cases.json", folder / "found.json"
    given.write_text(json.dumps(cases))
    together("agreement.py", world, str(found), str(given))
    answer: list[float] = json.loads(found.read_bytes())
    return answer


def apart(cases: Sequence[Case], world: int, folder: Path, tolerances: Sequence[float] = ()) -> dict[str, float]:
    """The cases that do not agree."""
    found = distances(cases, world, folder)
    limits = tolerances or [TOLERANCE] * len(cases)
    each = zip(cases, found, limits, strict=True)
    return {json.dumps(case): far for case, far, limit in each if not far <= limit}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("world", [1, 2])
def test_every_adapter_ends_where_a_single_process_does(world: int, tmp_path: Path) -> None:
    assert not apart(USUAL, world, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.skipif(os.environ.get("MT_EXHAUSTIVE") != "1", reason="set MT_EXHAUSTIVE=1: ten minutes of two cores")
def test_every_adapter_agrees_at_every_other_stage(world: int, tmp_path: Path) -> None:
    assert not apart([case for case in EVERY if case not in USUAL], world, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_way_to_train_agrees_on_two_ranks(tmp_path: Path) -> None:
    tried = [*((case, stages, TOLERANCE) for case, stages in OTHERS), *ROUGH]
    cases = [({"steps": SOME, **case, "stage": stage}, limit) for case, stages, limit in tried for stage in stages]
    assert not apart([case for case, _ in cases], 2, tmp_path, [limit for _, limit in cases])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_snapshot_fits_every_stage_of_one_rank(tmp_path: Path) -> None:
    assert not apart([{**MTLORA, "check": "restored", "steps": 2, "stage": stage} for stage in STAGES], 1, tmp_path)

"""A run goes on with another number of ranks, another stage, another engine; and is evaluated by several ranks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from .conftest import Run
from .runs import TINY, state

STEADY = (
    *TINY, "adapter.dropout=0", "backbone.drop_path=0", "trainer.eval_before=false",
    "trainer.eval_every=100", "trainer.save_every=2", "trainer.keep_states=9",
    "trainer.schedule=constant", "trainer.warmup=0", "trainer.lr=1e-4", "trainer.max_steps=2",
)  # fmt: skip
ALONE = ("engine=torch", "launch.ranks=1")


def stage(number: int, ranks: int) -> tuple[str, ...]:
    return "engine=deepspeed", f"engine.stage={number}", f"launch.ranks={ranks}"


def distance(a: dict[str, Tensor], b: dict[str, Tensor], head: str) -> float:
    """How far apart the tensors under a name are, relative to their size.

    A bias in front of a batch norm is left out, with the mean that it moves: its gradient is nothing but rounding,
    which Adam scales up. So are counts of steps: PyTorch takes none for what never gets a gradient, DeepSpeed does.
    """
    rounding = ("mix.0.bias", "mix.1.running_mean")
    names = [
        name
        for name in a.keys() & b.keys()
        if name.startswith(f"{head}/")
        and b[name].is_floating_point()
        and not name.endswith(rounding)
        and "/step/" not in name
    ]
    strange = {name for name in a.keys() ^ b.keys() if "/exp_avg" in name}
    assert names
    assert all(not x.any() for each in (a, b) for name, x in each.items() if name in strange)
    difference = torch.cat([(a[name] - b[name]).double().flatten() for name in names])
    return float(difference.norm() / torch.cat([b[name].double().flatten() for name in names]).norm())


@pytest.mark.slow
@pytest.mark.parametrize("before", [stage(3, 2), ALONE], ids=["from two ranks at stage 3", "from one process"])
def test_a_run_goes_on_with_other_ranks_stages_and_engines_as_it_would_have(
    run: Run, tmp_path: Path, before: tuple[str, ...]
) -> None:
    run(0, *STEADY, *before, "trainer.ema=0.9")
    begun = state(tmp_path / "run", 2)
    others = [ALONE, stage(1, 2)] if before != ALONE else [stage(2, 2), stage(0, 1)]
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    run(0, "resume=run", "trainer.max_steps=4")
    expected = state(tmp_path / "run", 4)
    assert distance(begun, expected, "trained") > 1e-4, "the two steps make a difference"
    for other in others:
        shutil.rmtree(tmp_path / "run")
        shutil.copytree(tmp_path / "copy", tmp_path / "run")
        found = run(0, "resume=run", "trainer.max_steps=4", *other)
        assert "launch.ranks: " in found.err or "engine" in found.err
        after = state(tmp_path / "run", 4)
        for head, limit in (("trained", 1e-5), ("average", 1e-5), ("optimizer", 1e-3)):
            assert distance(after, expected, head) < limit, (other, head)


def test_two_ranks_count_every_picture_once_in_an_evaluation(run: Run, tmp_path: Path) -> None:
    run(0, *TINY, "trainer.max_steps=1", "trainer.eval_before=false", "dataset.count=7")
    alone, together = (
        json.loads(run(0, "eval", "checkpoint=run", "--json", f"launch.ranks={ranks}").out) for ranks in (1, 2)
    )
    assert alone["images"] == together["images"] == 7
    for key in ("metrics", "losses"):
        flat = [torch.tensor(list(_numbers(each[key]))) for each in (alone, together)]
        torch.testing.assert_close(*flat, rtol=1e-5, atol=1e-5)
    assert together["written"] == "run/eval-2.json"


def _numbers(values: dict[str, object]) -> list[float]:
    return [
        x
        for value in values.values()
        for x in (_numbers(value) if isinstance(value, dict) else [value])  # type: ignore[list-item]
    ]

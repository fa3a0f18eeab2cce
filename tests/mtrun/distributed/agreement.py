"""`python agreement.py OUT CASE...`: one rank of several; trains each case with DeepSpeed and as a single process does.

Run by test_agreement.py, once for each number of ranks: starting up costs more than the cases themselves. Writes, from
rank 0, how far the trained weights are apart: {case: relative distance}.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mt_core.build import Built, Entry, ModelSpec, build
from mt_core.dataset import Batch
from mt_core.discovery import registry
from mt_core.model import Objective
from mt_core.tasks import Depth, Normals, Saliency, Segmentation
from mtrun.balancers.fixed import Fixed
from mtrun.deepspeed_engine import DeepSpeedEngine
from mtrun.engine import Engine
from mtrun.places import place
from mtrun.ranks import ALONE, Ranks, joined
from mtrun.recipe import TrainerOptions
from mtrun.torch_engine import TorchEngine

CPU = torch.device("cpu")
SIZE = (32, 32)
BATCH, STEPS = 4, 20
TASKS = Segmentation("semseg", 3), Depth("depth"), Normals("normals", 3, loss_name="cosine"), Saliency("saliency")
OPTIONS = TrainerOptions(batch_size=BATCH, clip=1.0, ema=0.9, weight_decay=0.05)
PLAN = {
    "tglora": {
        "tasks": ["semseg", "depth", "normals", "saliency"],
        "similarity": [[1.0 if i == j else 0.0 for i in range(4)] for j in range(4)],
        "examples": 4,
        "groups": [*[[["semseg", "depth", "normals", "saliency"]]] * 3, [["semseg", "saliency"], ["depth", "normals"]]],
    }
}


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained, and how."""

    adapter: str
    stage: int
    backbone: str = "swin_nano"
    decoder: str = "hrnet"
    trainer: tuple[tuple[str, object], ...] = ()
    engine: tuple[tuple[str, object], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Case:
        return cls(**json.loads(text))


def spec(case: Case) -> ModelSpec:
    """The model of a case. Dropout differs from rank to rank, so there is none."""
    fields = {field.name for field in dataclasses.fields(registry("adapters")[case.adapter])}
    options = {"dropout": 0.0} if "dropout" in fields else {}
    tasks = tuple(task.to_json() for task in TASKS)
    plan = PLAN.get(case.adapter, {})
    return ModelSpec(Entry(case.backbone), Entry(case.adapter, options), Entry(case.decoder), tasks, SIZE, plan=plan)


def built(case: Case) -> Built:
    """The model of a case, without what turns the last bit of a sum into another step.

    A ReLU has a kink, and a bias before a batch norm a gradient that is nothing but rounding, which Adam scales up.
    """
    model = build(spec(case))
    for head in model.model.decoders.values():
        for name, module in list(head.named_modules()):
            if isinstance(module, torch.nn.ReLU):
                head.set_submodule(name, torch.nn.GELU())
        head.get_parameter("mix.0.bias").requires_grad_(False)
    return model


def batches(step: int, count: int) -> list[Batch]:
    """Pictures of noise with labels of noise; in some steps nobody has a task's labels, in some only one half has."""
    return [_batch(step * count + number) for number in range(count)]


def _batch(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)

    def noise(*shape: int) -> Tensor:
        return torch.rand(BATCH, *shape, *SIZE, generator=generator)

    labels = {
        "semseg": (noise() * 3).long(),
        "depth": 1 + noise(1) * 3,
        "normals": torch.nn.functional.normalize(noise(3) - 0.5, dim=1),
        "saliency": (noise(1) > 0.8).float(),
    }
    labels["semseg"][noise() > 0.9] = 255
    labels["depth"][:2][noise(1)[:2] > 0.3] = 0  # more pixels of one half of the batch count
    if number % 3 == 1:
        labels["normals"][:] = 0
    if number % 3 == 2:
        labels["saliency"][:2] = 255
    present = {name: torch.ones(BATCH, dtype=torch.bool) for name in labels}
    return Batch([f"noise-{number}-{i}" for i in range(BATCH)], noise(3), labels, present)


def part_of(batch: Batch, ranks: Ranks) -> Batch:
    size = BATCH // ranks.world
    mine = slice(ranks.rank * size, (ranks.rank + 1) * size)

    def cut(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: x[mine] for name, x in tensors.items()}

    return Batch(batch.ids[mine], batch.images[mine], cut(batch.labels), cut(batch.present))


def trained(engine: Engine, model: Built, case: Case, ranks: Ranks) -> dict[str, Tensor]:
    """The state after the case's steps."""
    balancer = Fixed()
    balancer.start([task.name for task in TASKS], 0, 1)
    options = replace(OPTIONS, **dict(case.trainer))
    engine.prepare(Objective(model.model, {}), options, CPU, ranks, balancer)
    for step in range(STEPS):
        given = [part_of(batch, ranks) for batch in batches(step, options.accumulate)]
        engine.step(step + 1, given, 5e-4)
    return {name: x.clone() for name, x in engine.snapshot().items()}


def distance(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest relative distance of trained weights, of their average, and of the tensors that an artefact has."""
    worst = 0.0
    for head in ("trained", "average"):
        names = [name for name, x in expected.items() if name.startswith(head) and x.is_floating_point()]
        assert names
        assert all(found[name].shape == expected[name].shape and found[name].numel() for name in names)
        difference = torch.cat([(found[name] - expected[name]).double().flatten() for name in names])
        whole = torch.cat([expected[name].double().flatten() for name in names])
        worst = max(worst, float(difference.norm() / whole.norm()))
    return worst


def main(out: str, texts: list[str]) -> None:
    where = place()
    expected: dict[str, dict[str, Tensor]] = {}
    found: dict[str, float] = {}
    with joined(where, CPU, 5.0) if where else nullcontext(ALONE) as ranks:
        for text in texts:
            case = Case.parse(text)
            key = repr(replace(case, stage=0, engine=()))
            if key not in expected:
                expected[key] = trained(TorchEngine(), built(case), case, ALONE)
            engine = DeepSpeedEngine(stage=case.stage, **dict(case.engine))
            found[text] = distance(trained(engine, built(case), case, ranks), expected[key])
            engine.engine.destroy()
        if ranks.is_main:
            Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

"""`python agreement.py OUT CASES`: one rank of several; trains each case with DeepSpeed and as a single process does.

Run by test_agreement.py, once for each number of ranks: starting up costs more than the cases themselves. Reads a list
of cases, and writes, from rank 0, how far the engines are apart in each: a list of relative distances.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mt_backbones_swin.swin import SwinNano
from mt_core.build import Built, Entry, ModelSpec, build
from mt_core.dataset import Batch
from mt_core.discovery import registry
from mt_core.model import Objective
from mt_core.tasks import Depth, Normals, Saliency, Segmentation
from mtrun.balancers import BALANCERS, Balancer
from mtrun.deepspeed_engine import DeepSpeedEngine
from mtrun.engine import Engine
from mtrun.places import place
from mtrun.ranks import ALONE, Ranks, joined
from mtrun.recipe import Precision, TrainerOptions
from mtrun.torch_engine import TorchEngine

Found = dict[str, Tensor]

CPU = torch.device("cpu")
BATCH, STEPS = 4, 20
TASKS = Normals("normals", 3, loss_name="cosine"), Saliency("saliency"), Segmentation("semseg", 3), Depth("depth")
OPTIONS = TrainerOptions(batch_size=BATCH, clip=1.0, ema=0.9, weight_decay=0.05)
WIDTHS = {"widths": [4, 4, 8, 8]}
DECODERS: dict[str, dict[str, Any]] = {
    "hrnet": {**WIDTHS, "expansion": 2},
    "aspp": {**WIDTHS, "rates": [1, 2]},
    "segformer": {"hidden": 16, "dropout": 0.0},
}

# Many cases, so a smaller miniature.
SwinNano.overrides = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}


@dataclass(frozen=True)
class Case:
    """What is trained, and how.

    Attributes:
        tasks: how many of `TASKS`.
        check: of `CHECKS`.
        exact: whether the model has nothing that turns the last bit of a sum into another step (see `smoothed`).
        norms: whether the decoders keep their batch norms, before which many a bias has no gradient but rounding.
        trainer, engine: their options that differ from the usual ones.
    """

    adapter: str
    stage: int
    backbone: str = "swin_nano"
    decoder: str = "hrnet"
    size: int = 32
    tasks: int = 2
    steps: int = STEPS
    exact: bool = True
    norms: bool = True
    check: str = "weights"
    balancer: str = "fixed"
    trainer: dict[str, Any] = field(default_factory=dict)
    engine: dict[str, Any] = field(default_factory=dict)

    @property
    def alone(self) -> str:
        """What the single process trains: the same for every stage."""
        return json.dumps(dataclasses.asdict(replace(self, stage=0, check="", engine={})))


def spec(case: Case) -> ModelSpec:
    """The model of a case. Dropout differs from rank to rank, so there is none; and ToRA starts smaller."""
    fields = {each.name for each in dataclasses.fields(registry("adapters")[case.adapter])}
    options = {name: value for name, value in {"dropout": 0.0, "init_scale": 0.1}.items() if name in fields}
    names = [task.name for task in TASKS[: case.tasks]]
    decoder = Entry(case.decoder, DECODERS.get(case.decoder, {}))
    tasks, size = tuple(task.to_json() for task in TASKS[: case.tasks]), (case.size, case.size)
    plan = plan_of(names) if case.adapter == "tglora" else {}
    return ModelSpec(Entry(case.backbone), Entry(case.adapter, options), decoder, tasks, size, plan=plan)


def plan_of(names: list[str]) -> dict[str, Any]:
    """A tree of groups that parts at the last stage."""
    similarity = [[float(one == other) for one in names] for other in names]
    groups = [*[[names]] * 3, [names[::2], names[1::2]]]
    return {"tasks": names, "similarity": similarity, "examples": 4, "groups": groups}


def smoothed(model: nn.Module) -> None:
    """Take out what turns the last bit of a sum into another step.

    A ReLU has a kink. A bias before a batch norm, and that of a key before a softmax, change nothing: their gradient is
    rounding and nothing else, which Adam scales up to steps of full size.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.ReLU):
            model.set_submodule(name, nn.GELU())
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for name, parameter in model.named_parameters():
        if re.search(r"\.mix\.0\.bias$|\.embed\.\d+\.[01]\.bias$", name):  # of hrnet and of segformer
            parameter.requires_grad_(False)
        if name.endswith("qkv.bias") and parameter.requires_grad:
            parameter.register_hook(without_keys)


def without_keys(gradient: Tensor) -> Tensor:
    third = len(gradient) // 3
    return torch.cat([gradient[:third], torch.zeros_like(gradient[:third]), gradient[2 * third :]])


def built(case: Case) -> Built:
    model = build(spec(case))
    if case.exact:
        smoothed(model.model)
    if not case.norms:
        for name, module in list(model.model.decoders.named_modules()):
            if isinstance(module, nn.BatchNorm2d):
                model.model.decoders.set_submodule(name, nn.Identity())
    return model


def batches(step: int, count: int, tasks: int) -> list[Batch]:
    """Pictures of noise with labels of noise; in some steps nobody has a task's labels, in some only one half has."""
    return [_batch(step * count + number, tasks) for number in range(count)]


def _batch(number: int, tasks: int) -> Batch:
    generator = torch.Generator().manual_seed(number)

    def noise(*shape: int) -> Tensor:
        return torch.rand(BATCH, *shape, 32, 32, generator=generator)

    labels = {
        "normals": nn.functional.normalize(noise(3) - 0.5, dim=1),
        "saliency": (noise(1) > 0.8).float(),
        "semseg": (noise() * 3).long(),
        "depth": 1 + noise(1) * 3,
    }
    labels["semseg"][noise() > 0.9] = 255
    labels["depth"][:2][noise(1)[:2] > 0.3] = 0  # more pixels of one half of the batch count
    labels["normals"][:2] *= noise(1)[:2] > 0.3
    if number % 3 == 1:
        labels["normals"][:] = 0
    if number % 3 == 2:
        labels["saliency"][:2] = 255
    labels = {task.name: labels[task.name] for task in TASKS[:tasks]}
    present = {name: torch.ones(BATCH, dtype=torch.bool) for name in labels}
    return Batch([f"noise-{number}-{i}" for i in range(BATCH)], noise(3), labels, present)


def part_of(batch: Batch, ranks: Ranks) -> Batch:
    size = BATCH // ranks.world
    mine = slice(ranks.rank * size, (ranks.rank + 1) * size)

    def cut(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: x[mine] for name, x in tensors.items()}

    return Batch(batch.ids[mine], batch.images[mine], cut(batch.labels), cut(batch.present))


def enlarged(batch: Batch, size: int) -> Batch:
    """At the size that a backbone wants."""

    def grown(x: Tensor) -> Tensor:
        every = x.shape[-1] // size or size // x.shape[-1]
        return x.repeat_interleave(every, -1).repeat_interleave(every, -2)

    return replace(batch, images=grown(batch.images), labels={name: grown(x) for name, x in batch.labels.items()})


def started(name: str, tasks: int) -> Balancer:
    balancer: Balancer = BALANCERS[name]()
    balancer.start([task.name for task in TASKS[:tasks]], 0, 1)
    return balancer


def prepared(engine: Engine, case: Case, ranks: Ranks) -> None:
    given = {**case.trainer, "precision": Precision(case.trainer.get("precision", "fp32"))}
    options, balancer = replace(OPTIONS, **given), started(case.balancer, case.tasks)
    engine.prepare(Objective(built(case).model, {}), options, CPU, ranks, balancer)


def trained(engine: Engine, case: Case, ranks: Ranks) -> Found:
    """What a fresh model is after the case's steps: the snapshot, and what an artefact gets."""
    prepared(engine, case, ranks)
    for step in range(case.steps):
        take(engine, step, case, ranks)
    return found_in(engine)


def take(engine: Engine, step: int, case: Case, ranks: Ranks) -> None:
    every = batches(step, case.trainer.get("accumulate", 1), case.tasks)
    if case.size != 32:
        every = [enlarged(batch, case.size) for batch in every]
    engine.step(step + 1, [part_of(batch, ranks) for batch in every], 5e-4)


def found_in(engine: Engine) -> Found:
    found = {**engine.snapshot(), **{f"state/{name}": x for name, x in engine.state().items()}}
    return {name: x.clone() for name, x in found.items()}


@cache
def alone(text: str) -> Found:
    """What a single process finds."""
    return trained(TorchEngine(), Case(**json.loads(text)), ALONE)


def distance(found: Found, expected: Found, *heads: str) -> float:
    """The largest relative distance of the tensors under some heads, taken together."""
    worst = 0.0
    for head in heads:
        names = [name for name, x in expected.items() if name.startswith(head) and x.is_floating_point()]
        assert names == [name for name, x in found.items() if name.startswith(head) and x.is_floating_point()]
        assert all(found[name].shape == expected[name].shape and found[name].numel() for name in names)
        difference = torch.cat([(found[name] - expected[name]).double().flatten() for name in names])
        whole = torch.cat([expected[name].double().flatten() for name in names])
        worst = max(worst, float(difference.norm() / whole.norm()))
    return worst


# What is looked at. All ranks do it together; rank 0 knows the answer.


def weights_apart(engine: DeepSpeedEngine, case: Case, ranks: Ranks) -> float:
    """Trained weights, their average, and what an artefact gets, which has every tensor and none that is empty."""
    found = trained(engine, case, ranks)
    heads = ["trained/", "state/", *(["average/"] if engine.average is not None else [])]
    return distance(found, alone(case.alone), *heads) if ranks.is_main else 0.0


def gradients_apart(engine: DeepSpeedEngine, case: Case, ranks: Ranks) -> float:
    """Gradients, of which Adam's first moment is a multiple after one step."""
    found = trained(engine, case, ranks)
    if not ranks.is_main:
        return 0.0
    expected = {name: x for name, x in alone(case.alone).items() if name.startswith("optimizer/exp_avg/")}
    return distance({name: found[name] for name in expected}, expected, "optimizer/exp_avg/")


def restored_apart(engine: DeepSpeedEngine, case: Case, ranks: Ranks) -> float:
    """A snapshot of a single process, put back here and taken again, is the same bit for bit; a step later it agrees.

    So a snapshot of any stage and number of ranks fits any other. The snapshot after as many own steps agrees, too.
    """
    before, after = alone(case.alone), alone(replace(case, steps=case.steps + 1).alone)
    trained(engine, case, ranks)
    own = distance(_moments(found_in(engine), before), _moments(before, before), "optimizer/", "trained/")
    engine.engine.destroy()
    engine = replace(engine)
    prepared(engine, case, ranks)
    engine.restore(before)
    again = found_in(engine)
    assert before.keys() <= again.keys()
    different = [name for name, x in before.items() if not torch.equal(x, again[name])]
    assert not different, different
    back = TorchEngine()
    prepared(back, case, ALONE)
    back.restore({name: x for name, x in again.items() if not name.startswith("state/")})
    assert distance(back.snapshot(), before, "trained/", "average/") == 0
    take(engine, case.steps, case, ranks)
    return max(own, distance(found_in(engine), after, "trained/", "state/", "average/"))


def _moments(found: Found, like: Found) -> Found:
    return {name: found[name] for name in like}


def idle_moved(engine: DeepSpeedEngine, case: Case, ranks: Ranks) -> float:
    """How far a head moves in a step that it takes no part in, by an optimiser that remembers nothing."""
    prepared(engine, case, ranks)
    take(engine, 0, case, ranks)
    engine.objective.model.select(["saliency"])
    del engine.objective.weights["normals"]
    engine.balancer.start(["saliency"], 0, 1)
    before = found_in(engine)
    take(engine, 2, case, ranks)
    after = found_in(engine)
    moved = {name: float((after[name] - x).abs().max()) for name, x in before.items() if name.startswith("trained/")}
    assert max(far for name, far in moved.items() if "decoders.saliency" in name) > 0
    return max(far for name, far in moved.items() if "decoders.normals" in name)


CHECKS = {"weights": weights_apart, "gradients": gradients_apart, "restored": restored_apart, "idle": idle_moved}


def main(out: str, cases: str) -> None:
    where = place()
    found = []
    with joined(where, CPU, 5.0) if where else nullcontext(ALONE) as ranks:
        for case in (Case(**case) for case in json.loads(Path(cases).read_bytes())):
            engine = DeepSpeedEngine(stage=case.stage, **case.engine)
            found.append(CHECKS[case.check](engine, case, ranks))
            engine.engine.destroy()
            if ranks.is_main:
                Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])

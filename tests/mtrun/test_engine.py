"""The engine's step: exact equivalences, and what happens when it cannot be taken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mt_core.augment import evaluation_transform
from mt_core.build import Built, Entry, ModelSpec, build
from mt_core.dataset import Batch
from mt_core.errors import CheckpointError, ConfigError, NonFiniteError
from mt_core.model import Objective
from mt_core.task import Task
from mtrun.balancers.fixed import Fixed
from mtrun.data import evaluation_batches
from mtrun.optimizers import learning_rate
from mtrun.ranks import ALONE
from mtrun.recipe import RunningOptions, Schedule, TrainerOptions
from mtrun.torch_engine import TorchEngine

from .toy import Toy

CPU = torch.device("cpu")
TASKS = tuple(Toy().tasks().values())
LINEAR = tuple(task for task in TASKS if task.name != "saliency")  # whose losses are plain means over the batch


def built(tasks: Sequence[Task] = TASKS) -> Built:
    """A small MTLoRA without dropout, in double precision, in which equal means equal."""
    adapter = Entry("mtlora", {"rank": 2, "task_rank": 2, "dropout": 0.0})
    spec = ModelSpec(Entry("swin_nano"), adapter, Entry("hrnet"), tuple(task.to_json() for task in tasks), (32, 40))
    model = build(spec)
    model.model.double()
    return model


def batch_of(count: int, tasks: Sequence[Task] = TASKS) -> Batch:
    samples = Toy(count=count).split("train", tasks)
    options = RunningOptions(batch_size=count, workers=0)
    batch = next(evaluation_batches(samples, evaluation_transform((32, 40)), tasks, options, CPU))
    return replace(batch, images=batch.images.double())


def half(batch: Batch, part: slice) -> Batch:
    def cut(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: x[part] for name, x in tensors.items()}

    return Batch(batch.ids[part], batch.images[part], cut(batch.labels), cut(batch.present))


def without_batch_norm(model: nn.Module) -> None:
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())


def prepared(model: Built, **options: Any) -> TorchEngine:
    engine = TorchEngine()
    balancer = Fixed()
    balancer.start(list(model.model.tasks), 0, 1)
    engine.prepare(Objective(model.model, {}), TrainerOptions(**{"clip": None, **options}), CPU, ALONE, balancer)
    return engine


def parameters(model: Built) -> dict[str, Tensor]:
    return {name: x.detach().clone() for name, x in model.model.state_dict().items()}


def assert_close(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float) -> None:
    for name, x in a.items():
        assert torch.allclose(x, b[name], atol=tolerance, rtol=tolerance), name


@pytest.mark.parametrize("size", [1, 3])
def test_a_few_tasks_per_pass_give_the_gradients_of_all_at_once(size: int) -> None:
    together, apart = built(), built()
    for model, tasks_per_pass in ((together, None), (apart, size)):
        engine = prepared(model, tasks_per_pass=tasks_per_pass)
        engine.step(1, [batch_of(2)], 0.0)
        assert model.model.selected == tuple(task.name for task in TASKS)
    gradients = [{n: p.grad for n, p in m.model.named_parameters() if p.grad is not None} for m in (together, apart)]
    assert gradients[0].keys() == gradients[1].keys()
    assert_close(gradients[0], gradients[1], 1e-9)


def test_three_steps_with_a_pass_per_task_end_at_the_same_weights() -> None:
    models = built(), built()
    for model, tasks_per_pass in zip(models, (None, 1), strict=True):
        engine = prepared(model, tasks_per_pass=tasks_per_pass)
        for step in range(3):
            engine.step(step, [batch_of(2)], 1e-3)
    assert_close(parameters(models[0]), parameters(models[1]), 1e-9)


def test_two_accumulated_batches_give_the_gradient_of_one_twice_as_large() -> None:
    whole, parts, batch = built(LINEAR), built(LINEAR), batch_of(4, LINEAR)
    for model, batches in ((whole, [batch]), (parts, [half(batch, slice(0, 2)), half(batch, slice(2, 4))])):
        without_batch_norm(model.model)
        result = prepared(model).step(1, batches, 0.0)
        assert result.losses.keys() == {"semseg", "depth", "normals"}
    gradients = [{n: p.grad for n, p in m.model.named_parameters() if p.grad is not None} for m in (whole, parts)]
    assert_close(gradients[0], gradients[1], 1e-9)


def test_a_step_moves_what_is_trainable_and_nothing_else() -> None:
    model = built()
    before = parameters(model)
    prepared(model).step(1, [batch_of(2)], 1e-2)
    after, trainable = parameters(model), {n for n, p in model.model.named_parameters() if p.requires_grad}
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved <= trainable | {name for name in after if "mix.1.running" in name or name.endswith("batches_tracked")}
    assert moved >= {"decoders.depth.narrow.0.weight", "encoder.layers.0.blocks.0.attn.qkv.b"}


def test_the_gradient_is_clipped_to_its_largest_norm() -> None:
    model = built()
    result = prepared(model, clip=0.5).step(1, [batch_of(2)], 0.0)
    gradients = [p.grad for p in model.model.parameters() if p.grad is not None]
    assert result.norm > 0.5
    assert float(torch.stack([g.square().sum() for g in gradients]).sum().sqrt()) == pytest.approx(0.5, rel=1e-4)


def test_a_loss_that_is_not_finite_changes_nothing() -> None:
    model, batch = built(), batch_of(2)
    engine, before = prepared(model), parameters(model)
    batch.labels["depth"][1] = torch.inf
    with pytest.raises(NonFiniteError, match=r"step 7: the loss of task depth is inf on the pictures toy-0, toy-1"):
        engine.step(7, [batch], 1e-2)
    assert_close(before, parameters(model), 0)
    assert not engine.optimizer.state


def test_the_accumulated_batch_with_the_bad_loss_is_the_one_that_is_named() -> None:
    model, batch = built(), batch_of(4)
    bad = half(batch, slice(2, 4))
    bad.labels["depth"][0] = torch.nan_to_num(bad.labels["depth"][0]) * torch.inf
    with pytest.raises(NonFiniteError, match=r"on the pictures toy-2, toy-3;"):
        prepared(model).step(1, [half(batch, slice(0, 2)), bad], 1e-2)


@pytest.mark.parametrize(
    ("parameter", "named"),
    [
        ("decoders.normals.narrow.0.weight", "for task normals (first in decoders.normals"),
        ("encoder.patch_embed.proj.weight", "for task semseg, depth, normals, saliency (first in encoder.patch_embed"),
    ],
)
def test_a_gradient_that_is_not_finite_changes_nothing_and_names_its_tasks(parameter: str, named: str) -> None:
    model = built()
    engine, before = prepared(model), parameters(model)
    model.model.get_parameter(parameter).register_hook(lambda gradient: gradient * torch.nan)
    with pytest.raises(NonFiniteError, match=re.escape(named)):
        engine.step(1, [batch_of(2)], 1e-2)
    assert_close(before, parameters(model), 0)


def test_a_gradient_that_is_not_finite_names_the_pictures() -> None:
    model = built()
    engine = prepared(model)
    model.model.get_parameter("encoder.patch_embed.proj.weight").register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(
        NonFiniteError, match=r"step 1: the gradient is not finite \(.*toy-0, toy-1; nothing was changed"
    ):
        engine.step(1, [batch_of(2)], 1e-2)


def test_the_average_follows_the_weights_and_is_lent_to_the_model() -> None:
    model = built()
    engine = prepared(model, ema=0.5)
    name = "decoders.depth.narrow.0.weight"
    live = model.model.get_parameter(name)
    start = live.detach().clone()
    engine.step(1, [batch_of(2)], 1e-2)
    moved = live.detach().clone()
    share = (1 + 1) / (10 + 1)  # of the old average, early on
    torch.testing.assert_close(engine.state()[name], share * start + (1 - share) * moved)
    with engine.averaged():
        torch.testing.assert_close(live.detach(), engine.state()[name])
    assert torch.equal(live.detach(), moved)


def test_without_an_average_the_state_is_the_models_own() -> None:
    model = built()
    engine = prepared(model)
    with engine.averaged():
        assert engine.state().keys() >= {name for name, p in model.model.named_parameters() if p.requires_grad}
    name = "decoders.depth.narrow.0.weight"
    assert torch.equal(engine.state()[name], model.model.get_parameter(name))


def test_a_snapshot_takes_another_engine_to_the_same_place() -> None:
    first, second, batch = built(), built(), batch_of(2)
    engine, other = prepared(first, ema=0.9), prepared(second, ema=0.9)
    engine.step(1, [batch], 1e-2)
    other.restore({name: x.clone() for name, x in engine.snapshot().items()})
    for each in (engine, other):
        each.step(2, [batch], 1e-2)
    a, b = engine.snapshot(), other.snapshot()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert int(a["average_updates"]) == 2


def test_an_average_that_was_not_kept_begins_at_the_restored_weights() -> None:
    first, second = built(), built()
    engine, other = prepared(first), prepared(second, ema=0.9)
    engine.step(1, [batch_of(2)], 1e-2)
    other.restore(engine.snapshot())
    assert_close(other.state(), engine.state(), 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimizer/exp_avg/decoders.depth.nothing", torch.zeros(())),
        ("optimizer/exp_avg/decoders.depth.narrow.0.weight", torch.zeros(3, 3)),
        ("average/decoders.depth.narrow.0.weight", torch.zeros(3)),
    ],
)
def test_a_snapshot_of_another_model_changes_nothing(name: str, value: Tensor) -> None:
    model = built()
    engine, before = prepared(model), parameters(model)
    with pytest.raises(CheckpointError, match=r"the saved state holds .* which this model does not have"):
        engine.restore({**engine.snapshot(), name: value})
    assert_close(before, parameters(model), 0)
    assert not engine.optimizer.state


def test_a_regulariser_that_is_not_finite_is_not_taken_for_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    model = built()
    monkeypatch.setattr(model.model, "penalty", lambda: torch.tensor(torch.nan, requires_grad=True))
    with pytest.raises(NonFiniteError, match=r"step 1: the adapter's penalty is nan on the pictures toy-0, toy-1"):
        prepared(model).step(1, [batch_of(2)], 1e-2)


def test_vectors_norms_and_position_tables_are_not_decayed() -> None:
    engine = prepared(built(), weight_decay=0.1)
    names = {id(p): name for name, p in engine.parameters.items()}
    groups = {g["weight_decay"]: {names[id(p)] for p in g["params"]} for g in engine.optimizer.param_groups}
    assert "encoder.layers.0.blocks.0.attn.qkv.a" in groups[0.1]
    assert "encoder.layers.0.blocks.0.attn.bias.table" in groups[0.0]
    assert "encoder.layers.0.blocks.0.norm1.weight" in groups[0.0]
    assert "decoders.depth.mix.0.bias" in groups[0.0]
    assert sum(map(len, groups.values())) == len(engine.parameters)


def test_a_model_with_nothing_to_train_is_refused() -> None:
    model = built()
    model.model.requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing to train"):
        prepared(model)


def test_checkpointing_gives_the_same_gradient() -> None:
    models = built(), built()
    for model, checkpointing in zip(models, (False, True), strict=True):
        prepared(model, checkpointing=checkpointing).step(1, [batch_of(2)], 0.0)
    gradients = [{n: p.grad for n, p in m.model.named_parameters() if p.grad is not None} for m in models]
    assert_close(gradients[0], gradients[1], 1e-9)


def test_a_compiled_model_is_compiled_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    model, called = built(), []
    monkeypatch.setattr(type(model.model), "compile", lambda self: called.append(self))
    prepared(model, compile=True)
    assert called == [model.model]


@pytest.mark.parametrize("schedule", Schedule)
def test_the_rate_rises_in_a_line_and_then_follows_the_schedule(schedule: Schedule) -> None:
    options = replace(TrainerOptions(), schedule=schedule, lr=1.0, warmup=0.2, min_lr=0.1)
    rates = [learning_rate(step, 10, options) for step in range(10)]
    middle = {Schedule.cosine: 0.55, Schedule.linear: 0.55, Schedule.constant: 1.0}[schedule]
    assert rates[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert rates[6] == pytest.approx(middle)
    assert all(rate >= 0.1 for rate in rates)


def test_the_single_process_engine_is_refused_to_several_ranks() -> None:
    with pytest.raises(ConfigError, match=r"engine=torch is one process, and there are 2 ranks; take engine=deepspeed"):
        TorchEngine().refuse(TrainerOptions(), 2)
    TorchEngine().refuse(TrainerOptions(), 1)

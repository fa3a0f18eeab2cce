"""The model of all tasks, and what training minimises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from mt_core.adapter import Adapter
from mt_core.dataset import Batch, collate
from mt_core.errors import ConfigError
from mt_core.frozen import Frozen
from mt_core.model import MultiTaskModel, Objective
from mt_core.site import Site
from mt_core.streams import Streams
from mt_core.tasks import Depth, Normals, Segmentation
from mt_core.testing.miniatures import randomise

from .toys import TaskLoRA, ToyDataset, ToyDecoder, ToyEncoder, ToyLoRA

SEMSEG, DEPTH, NORMALS = Segmentation("semseg", 4), Depth("depth"), Normals("normals")
IMAGES = torch.rand(2, 3, 16, 24)


def model_of(adapter: Adapter, *tasks: Segmentation | Depth | Normals) -> MultiTaskModel:
    torch.manual_seed(0)
    model = MultiTaskModel(ToyEncoder(), adapter, ToyDecoder(), tasks or (SEMSEG, DEPTH)).eval()
    randomise([p for p in model.encoder.parameters() if p.requires_grad], 0.1)
    return model


def batch() -> Batch:
    tasks = (SEMSEG, DEPTH)
    samples = ToyDataset().split("train", tasks)
    return collate([samples[0], samples[1]], tasks)


class Regularised(TaskLoRA):
    def penalty(self) -> Tensor | None:
        return torch.stack([a.square().sum() for a in self.a.values()])


@dataclass
class RegularisedLoRA(ToyLoRA):
    module: ClassVar[type[TaskLoRA]] = Regularised


@dataclass
class MeanLoRA(RegularisedLoRA):
    def pool(self, terms: Tensor) -> Tensor:
        return terms.mean()


def test_every_task_gets_logits_of_the_pictures_size_in_the_users_order() -> None:
    logits = model_of(ToyLoRA(), NORMALS, SEMSEG)(IMAGES)
    assert {name: tuple(x.shape) for name, x in logits.items()} == {"normals": (2, 3, 16, 24), "semseg": (2, 4, 16, 24)}
    assert list(logits) == ["normals", "semseg"]


def test_pictures_are_normalised_by_the_backbones_statistics() -> None:
    model = model_of(Frozen())
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(torch.full((1, 3, 16, 24), 0.75))
    assert_close(seen[0], torch.ones(1, 3, 16, 24))


def test_statistics_move_with_the_model_and_are_not_saved() -> None:
    model = model_of(Frozen())
    assert model.double().mean.dtype is torch.float64
    assert not {"mean", "std"} & model.state_dict().keys()


def test_only_the_selected_tasks_are_predicted_and_the_same() -> None:
    model = model_of(ToyLoRA())
    whole = model(IMAGES)
    model.select(["depth"])
    assert model.selected == ("depth",)
    alone = model(IMAGES)
    assert list(alone) == ["depth"]
    assert_close(alone["depth"], whole["depth"])


def test_predictions_are_in_the_units_of_the_labels_and_need_no_graph() -> None:
    predictions = model_of(ToyLoRA()).predict(IMAGES)
    assert predictions["semseg"].shape == (2, 16, 24)
    assert predictions["semseg"].dtype is torch.int64
    assert predictions["depth"].shape == (2, 1, 16, 24)
    assert bool((predictions["depth"] >= 0).all())
    assert not predictions["depth"].requires_grad


def test_the_loss_is_the_weighted_sum_of_the_tasks_losses() -> None:
    model = model_of(ToyLoRA())
    logits, labels = model(batch().images), batch().labels
    expected = {
        "semseg": SEMSEG.loss(logits["semseg"], labels["semseg"]),
        "depth": DEPTH.loss(logits["depth"], labels["depth"]),
    }
    total, parts = Objective(model, {"semseg": 2.0, "depth": 0.5})(batch())
    assert_close(total, 2 * expected["semseg"] + 0.5 * expected["depth"])
    assert_close(parts, expected)
    assert total.requires_grad
    assert not any(part.requires_grad for part in parts.values())


def test_a_task_that_is_not_named_has_its_kinds_weight() -> None:
    assert Objective(model_of(Frozen(), NORMALS, SEMSEG), {"semseg": 3}).weights == {"normals": 10.0, "semseg": 3.0}


def test_weights_may_be_normalised_over_all_tasks_whichever_are_selected() -> None:
    model = model_of(ToyLoRA())
    objective = Objective(model, {"semseg": 3, "depth": 1}, normalise=True)
    assert objective.weights == {"semseg": 0.75, "depth": 0.25}
    whole, _ = objective(batch())
    passes = []
    for task in ("semseg", "depth"):
        model.select([task])
        passes.append(objective(batch())[0])
    assert_close(passes[0] + passes[1], whole)


def test_the_regulariser_is_pooled_by_the_adapter_weighed_and_reported() -> None:
    model = model_of(RegularisedLoRA())
    terms = torch.stack(
        [a.square().sum() for m in model.encoder.modules() if isinstance(m, TaskLoRA) for a in m.a.values()]
    )
    assert_close(model.penalty(), terms.sum())
    plain, _ = Objective(model, {}, penalty=0.0)(batch())
    total, parts = Objective(model, {}, penalty=0.1)(batch())
    half, _ = Objective(model, {}, penalty=0.1)(batch(), share=0.5)
    assert_close(parts["penalty"], terms.sum())
    assert_close(total, plain + 0.1 * terms.sum())
    assert_close(half, plain + 0.05 * terms.sum())
    assert_close(model_of(MeanLoRA()).penalty(), terms.mean())


def test_an_adapter_without_a_regulariser_has_no_penalty() -> None:
    model = model_of(ToyLoRA())
    assert model.penalty() is None
    assert "penalty" not in Objective(model, {})(batch())[1]


def test_a_weight_for_a_task_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="weights name task 'semsge'; the model has semseg, depth"):
        Objective(model_of(Frozen()), {"semsge": 2.0})


def test_weights_of_nothing_but_zeros_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"the weights of all losses are 0 \(semseg, depth\)"):
        Objective(model_of(Frozen()), {"semseg": 0, "depth": 0}, normalise=True)


def test_what_the_adapter_leaves_frozen_gets_no_gradient_and_every_decoder_does() -> None:
    model = model_of(ToyLoRA())
    Objective(model, {})(batch())[0].backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, name
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.decoders.parameters())


def test_the_reference_trains_the_decoders_only() -> None:
    model = model_of(Frozen())
    assert not any(p.requires_grad for p in model.encoder.parameters())
    assert all(p.requires_grad for p in model.decoders.parameters())
    assert Frozen().adapt(Site("x", model.encoder.sites()[0].role, 0), nn.Identity(), Streams.trunk(["a"])) is None

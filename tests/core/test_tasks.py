"""The kinds of task: predictions in the units of labels, refusals, colours, and the way through JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mt_core.errors import CheckpointError, ConfigError, DataError, PluginError
from mt_core.labels import BinaryMap, ClassMap, DepthMap, NormalMap
from mt_core.task import Task
from mt_core.tasks import KINDS, Depth, Edges, HumanParts, Normals, Saliency, Segmentation, task_from_json
from mt_core.tasks.colours import class_palette, depth_palette

TASKS: tuple[Task, ...] = (
    Segmentation("semseg", 4, ("wall", "floor", "bed", "lamp")),
    HumanParts("human_parts"),
    Saliency("saliency"),
    Edges("edges"),
    Depth("depth"),
    Normals("normals"),
)
every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


def good_label(task: Task) -> Tensor:
    """A label (…, 4, 5) with a void pixel at its end."""
    normal = torch.nn.functional.normalize(torch.randn(3, 4, 5), dim=0)
    label: Tensor = {
        ClassMap: torch.randint(0, task.channels, (4, 5)),
        BinaryMap: torch.randint(0, 2, (1, 4, 5)).float(),
        DepthMap: 1 + torch.rand(1, 4, 5),
        NormalMap: normal,
    }[task.label]
    label[..., -1, -1] = task.label.void
    return label


# --- what a task is


def test_weights_are_those_of_the_paper() -> None:
    weights = {kind: task.weight for kind, task in KINDS.items()}
    assert weights == {"segmentation": 1, "human_parts": 2, "saliency": 5, "edges": 50, "depth": 1, "normals": 10}


def test_channels_are_those_of_the_kind() -> None:
    channels = {task.kind: task.channels for task in TASKS}
    assert channels == {"segmentation": 4, "human_parts": 7, "saliency": 1, "edges": 1, "depth": 1, "normals": 3}


def test_kinds_are_listed_by_their_names() -> None:
    assert [kind.kind for kind in KINDS.values()] == list(KINDS)


@pytest.mark.parametrize("kind", [Saliency, Edges, Depth, Normals])
def test_a_kind_with_fixed_channels_refuses_others(kind: type[Task]) -> None:
    task = kind(name="it")  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"task it: 2 channels, but .* has [13]"):
        task.with_channels(2)


def test_a_class_map_holds_no_more_than_255_classes() -> None:
    assert Segmentation("many", 255).channels == 255
    with pytest.raises(ConfigError, match="256 channels; a class map holds at most 255"):
        Segmentation("many", 256)


@pytest.mark.parametrize(("kind", "count"), [(Saliency, 2), (Edges, 2), (Depth, 0), (Normals, 0)])
def test_class_names_of_maps_without_a_channel_per_class(kind: type[Task], count: int) -> None:
    assert kind("it").class_count == count  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=f"3 class names for {count} classes"):
        kind("it", classes=("a", "b", "c"))  # type: ignore[call-arg]


@every_task
def test_every_loss_of_a_task_accepts_its_label_and_logits(task: Task) -> None:
    target = good_label(task).unsqueeze(0)
    for name in task.losses:
        loss = task.with_loss(name).loss(torch.randn(1, task.channels, 4, 5), target)
        assert loss.shape == ()
        assert loss > 0


# --- predictions


@every_task
def test_a_prediction_has_the_shape_and_type_of_the_label(task: Task) -> None:
    prediction = task.predict(torch.randn(2, task.channels, 4, 5).bfloat16())
    assert prediction.shape == (2, *task.label.planes, 4, 5)
    assert prediction.dtype == task.label.dtype_


def test_the_likeliest_class_is_predicted() -> None:
    logits = torch.tensor([0.1, 3.0, -1.0, 2.9]).view(1, 4, 1, 1)
    assert TASKS[0].predict(logits).item() == 1


def test_binary_maps_predict_probabilities() -> None:
    assert Saliency("s").predict(torch.full((1, 1, 1, 1), math.log(3.0))).item() == pytest.approx(0.75)


def test_depth_is_never_below_zero() -> None:
    assert Depth("d").predict(torch.tensor([-2.0, 3.0]).view(1, 1, 1, 2)).flatten().tolist() == [0, 3]


def test_normals_are_predicted_with_unit_length() -> None:
    lengths = Normals("n").predict(1e-3 * torch.randn(1, 3, 4, 5)).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


# --- refusals


@every_task
def test_a_good_label_passes(task: Task) -> None:
    task.check(good_label(task), "a.png")


@every_task
def test_an_all_void_label_is_refused(task: Task) -> None:
    with pytest.raises(DataError, match=r"a\.png: no pixel is annotated"):
        task.check(task.label.empty(4, 5), "a.png")


BAD: list[tuple[str, float, str]] = [
    ("semseg", 4, r"found 4 at row 2, column 3 \(1 such values\); expected a class from 0 to 3, or 255"),
    ("semseg", -1, "found -1 .* expected a class from 0 to 3"),
    ("semseg", 254, "found 254"),
    ("human_parts", 7, "found 7 .* expected a class from 0 to 6"),
    ("saliency", 2, "found 2 .* expected 0, 1, or 255"),
    ("saliency", 0.5, r"found 0\.5"),
    ("saliency", math.nan, "found nan"),
    ("edges", -1, "found -1"),
    ("depth", math.nan, "found nan .* expected metres above 0"),
    ("depth", math.inf, "found inf"),
    ("depth", -0.5, r"found -0\.5 at row 2, column 3"),
    ("normals", math.nan, "found nan .* expected finite components"),
    ("normals", math.inf, "found inf"),
    ("normals", 2.0, r"length of a normal: found .* at row 2, column 3 .* expected 1"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_a_value_out_of_range_is_refused_with_file_task_value_and_place(name: str, value: float, message: str) -> None:
    task = next(task for task in TASKS if task.name == name)
    label = good_label(task)
    label[..., 2, 3] = value
    with pytest.raises(DataError, match=rf"^folder/a\.png: task {name}: ?.*{message}"):
        task.check(label, "folder/a.png")


@pytest.mark.parametrize(("length", "fine"), [(0.91, True), (1.09, True), (0.89, False), (1.11, False)])
def test_normals_may_be_a_tenth_off_unit_length(length: float, fine: bool) -> None:
    label = length * torch.nn.functional.normalize(torch.randn(3, 4, 5), dim=0)
    if fine:
        Normals("n").check(label, "a.npy")
    else:
        with pytest.raises(DataError, match="length of a normal"):
            Normals("n").check(label, "a.npy")


# --- colours


@every_task
def test_a_label_is_painted_with_void_black_and_nothing_else(task: Task) -> None:
    painted = task.colours(good_label(task))
    assert painted.shape == (3, 4, 5)
    assert painted.dtype == torch.uint8
    assert painted[:, -1, -1].tolist() == [0, 0, 0]
    assert (painted.sum(0).flatten()[:-1] > 0).all()


@every_task
def test_an_all_void_label_is_painted_black(task: Task) -> None:
    assert (task.colours(task.label.empty(3, 4)) == 0).all()


@every_task
def test_a_prediction_can_be_painted(task: Task) -> None:
    prediction = task.predict(torch.randn(2, task.channels, 4, 5))
    assert task.colours(prediction[0]).shape == (3, 4, 5)


def test_255_classes_have_255_colours_none_of_them_dark() -> None:
    palette = class_palette()
    assert len({tuple(colour) for colour in palette.tolist()}) == 256
    assert palette[255].tolist() == [0, 0, 0]
    assert palette[:255].int().sum(-1).min() > 100


def test_the_first_forty_colours_are_well_apart() -> None:
    colours = class_palette()[:40].float()
    assert torch.pdist(colours).min() > 40


def test_near_is_brighter_than_far() -> None:
    lightness = (depth_palette().float() * torch.tensor([0.2126, 0.7152, 0.0722])).sum(-1)
    assert (lightness.diff() <= 0.5).all()
    painted = Depth("d").colours(torch.linspace(1, 9, 50).view(1, 5, 10)).float().mean(0)
    assert painted[0, 0] > painted[-1, -1] + 100


def test_a_few_outliers_do_not_darken_a_depth_map() -> None:
    depth = torch.linspace(1, 2, 400).view(1, 20, 20)
    spoilt = depth.clone()
    spoilt[0, 0, 0] = 1000.0
    difference = (Depth("d").colours(depth).int() - Depth("d").colours(spoilt).int()).abs()
    assert difference[:, 1:].max() <= 12


def test_a_depth_map_of_one_value_can_be_painted() -> None:
    painted = Depth("d").colours(torch.full((1, 2, 2), 3.0)).flatten(1)
    assert (painted == painted[:, :1]).all()
    assert painted.sum() > 0


def test_normals_are_painted_as_usual() -> None:
    towards_camera = torch.tensor([0.0, 0, 1]).view(3, 1, 1)
    assert Normals("n").colours(towards_camera).flatten().tolist() == [128, 128, 255]


def test_no_is_grey_where_void_is_black() -> None:
    painted = Edges("e").colours(torch.tensor([0.0, 0.5, 1, 255]).view(1, 1, 4))
    assert painted[0, 0].tolist() == [40, 148, 255, 0]


# --- JSON


@every_task
def test_a_task_comes_back_from_json(task: Task) -> None:
    described = json.loads(json.dumps(task.with_loss(list(task.losses)[-1]).to_json()))
    assert task_from_json(described, KINDS) == task.with_loss(list(task.losses)[-1])


def test_a_third_partys_kind_comes_back_with_its_own_fields() -> None:
    @dataclasses.dataclass(frozen=True)
    class Heat(Depth):
        limit: float = 40.0
        kind = "heat"

    task = Heat("heat", limit=12.5)
    assert task_from_json(task.to_json(), {**KINDS, "heat": Heat}) == task


def test_an_unknown_kind_lists_the_known_ones() -> None:
    described = {**TASKS[0].to_json(), "kind": "flow"}
    with pytest.raises(PluginError, match=r"task 'semseg' is of kind 'flow'.*known kinds: depth, edges, human_parts"):
        task_from_json(described, KINDS)


@pytest.mark.parametrize("described", [None, [], "semseg", {}, {"kind": 3}])
def test_what_is_no_description_is_refused(described: Any) -> None:
    with pytest.raises(CheckpointError, match="expected an object with a `kind`"):
        task_from_json(described, KINDS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": 1}, r"missing fields \[\], unexpected fields \['extra'\]"),
        ({"channels": None}, "channels is None; expected int"),
        ({"channels": True}, "channels is True; expected int"),
        ({"channels": "4"}, "channels is '4'; expected int"),
        ({"name": 4}, "name is 4; expected str"),
        ({"classes": "abcd"}, "classes is 'abcd'; expected list"),
        ({"classes": [1, 2, 3, 4]}, "expected a list of names"),
        ({"classes": ["only one"]}, "is no task: task semseg: 1 class names for 4 classes"),
        ({"channels": 0}, "is no task: task semseg: 0 channels"),
        ({"loss_name": "hinge"}, "is no task: task semseg: no loss 'hinge'"),
    ],
)
def test_wrong_fields_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        task_from_json({**TASKS[0].to_json(), **change}, KINDS)


def test_a_missing_field_is_refused() -> None:
    described = TASKS[0].to_json()
    del described["channels"]
    with pytest.raises(CheckpointError, match=r"missing fields \['channels'\], unexpected fields \[\]"):
        task_from_json(described, KINDS)

"""The metrics of every protocol, against slow literal implementations of their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from mt_core.errors import ConfigError
from mt_core.labels import BinaryMap
from mt_core.protocols import PROTOCOLS, protocol
from mt_core.protocols.binary import MaxIoU
from mt_core.protocols.totals import TotalsMetric
from mt_core.tasks import KINDS, Depth, HumanParts, Saliency, Segmentation

from .protocol_literals import CASES, TASKS, batch, literal, measure

BY_BATCHES = {("mtsam", "depth"), ("mtsam", "normals")}  # what is averaged over batches
PUBLISHED = {
    **{(rules, "depth"): ("abs_err", "rel_err") for rules in ("mtan", "mtsam")},
    **{(rules, "segmentation"): ("miou", "pixel_accuracy") for rules in ("mtan", "mtsam")},
    ("mtsam", "human_parts"): ("miou", "pixel_accuracy"),
    **{
        (rules, "normals"): ("mean_angle", "median_angle", "within_11_25", "within_22_5", "within_30")
        for rules in ("mtan", "mtsam")
    },
}
LOWER = {"rmse", "abs_err", "abs_rel", "rel_err", "rmse_log", "mean_angle", "median_angle", "rmse_angle"}
every_case = pytest.mark.parametrize(("rules", "kind"), CASES)


# --- properties of every metric


def test_every_protocol_measures_what_its_papers_do() -> None:
    assert set(protocol("astmt").kinds) == set(KINDS) == set(TASKS)
    assert set(protocol("mtan").kinds) == {"segmentation", "depth", "normals"}
    assert set(protocol("mtsam").kinds) == {"segmentation", "human_parts", "depth", "normals"}


@every_case
@pytest.mark.parametrize("absent", [True, False], ids=["absent classes", "all classes"])
def test_metrics_equal_their_literal_definitions(rules: str, kind: str, absent: bool) -> None:
    batches = [batch(kind, 3, 1, absent=absent), batch(kind, 1, 2, absent=absent), batch(kind, 2, 3, 0.9, absent)]
    found, expected = measure(rules, kind, batches), literal(rules, kind, batches)
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, rel=1e-7, nan_ok=True)


@every_case
@settings(max_examples=10)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 999), st.floats(0, 0.95)), min_size=1, max_size=3))
def test_metrics_of_random_batches_equal_their_literal_definitions(
    rules: str, kind: str, sizes: list[tuple[int, int, float]]
) -> None:
    batches = [batch(kind, size, seed, void) for size, seed, void in sizes]
    batches = [(p, t) for p, t in batches if bool(TASKS[kind].label.valid(t).any())]
    if batches:
        expected = literal(rules, kind, batches)
        assert measure(rules, kind, batches) == pytest.approx(expected, rel=1e-6, abs=1e-6, nan_ok=True)


@every_case
def test_pictures_without_an_annotation_do_not_count(rules: str, kind: str) -> None:
    prediction, target = batch(kind, 3, 1)
    target[1] = TASKS[kind].label.void
    without = prediction[[0, 2]], target[[0, 2]]
    expected = measure(rules, kind, [without])
    assert measure(rules, kind, [(prediction, target)]) == pytest.approx(expected, rel=1e-12, nan_ok=True)


@every_case
def test_batches_without_an_annotation_do_not_count(rules: str, kind: str) -> None:
    some, none = batch(kind, 2, 1), batch(kind, 2, 2, void=1.1)
    expected = measure(rules, kind, [some])
    assert measure(rules, kind, [none, some, none]) == pytest.approx(expected, rel=1e-12, nan_ok=True)


@every_case
def test_predictions_of_void_pixels_do_not_count(rules: str, kind: str) -> None:
    prediction, target = batch(kind, 2, 1)
    other, _ = batch(kind, 2, 99)
    valid = TASKS[kind].label.valid(target)
    changed = torch.where(valid if prediction.ndim == 3 else valid.unsqueeze(1), prediction, other)
    expected = measure(rules, kind, [(prediction, target)])
    assert measure(rules, kind, [(changed, target)]) == pytest.approx(expected, rel=1e-12, nan_ok=True)


@pytest.mark.parametrize(("rules", "kind"), [case for case in CASES if case not in BY_BATCHES])
def test_the_size_of_batches_does_not_matter(rules: str, kind: str) -> None:
    prediction, target = batch(kind, 4, 1)
    one_by_one = [(prediction[i : i + 1], target[i : i + 1]) for i in range(4)]
    expected = measure(rules, kind, [(prediction, target)])
    assert measure(rules, kind, one_by_one) == pytest.approx(expected, rel=1e-12, nan_ok=True)


@every_case
def test_a_collection_finds_the_same_whatever_the_first_batch_is(rules: str, kind: str) -> None:
    # all sums are 0 after a batch without annotations, and equal in families that must not be joined for it
    for first in (batch(kind, 1, 1, void=1.1), batch(kind, 1, 1)):
        batches = [first, batch(kind, 2, 2), batch(kind, 1, 3)]
        collection = MetricCollection(dict(protocol(rules).metrics(TASKS[kind])))
        for prediction, target in batches:
            collection.update(prediction, target)
        found = {name: value.item() for name, value in collection.compute().items()}
        assert found == pytest.approx(measure(rules, kind, batches), rel=1e-14, nan_ok=True)


@every_case
def test_a_collection_looks_at_a_batch_once_for_every_family(rules: str, kind: str) -> None:
    metrics = protocol(rules).metrics(TASKS[kind])
    collection = MetricCollection(dict(metrics))
    collection.update(*batch(kind, 1, 1, void=1.1))
    families = {tuple(metric._defaults) for metric in metrics.values()}
    assert len(collection.compute_groups) == len(families)
    assert len(families) == {("mtan", "normals"): 2, ("mtsam", "normals"): 2, ("mtsam", "depth"): 2}.get(
        (rules, kind), 1
    )


@every_case
@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_no_data_gives_nan(rules: str, kind: str) -> None:
    prediction, target = batch(kind, 2, 1, void=1.1)
    assert all(math.isnan(value) for value in measure(rules, kind, [(prediction, target)]).values())
    assert all(math.isnan(value) for value in measure(rules, kind, []).values())


@every_case
def test_a_perfect_prediction_is_the_best(rules: str, kind: str) -> None:
    _, target = batch(kind, 2, 1, void=0)
    if kind in ("segmentation", "human_parts"):
        target[..., 0] = torch.arange(9) % TASKS[kind].channels
    metrics = protocol(rules).metrics(TASKS[kind])
    for name, value in measure(rules, kind, [(target, target)]).items():
        best = 100 if metrics[name].higher_is_better else 0
        assert value == pytest.approx(best, abs=1e-4)


@every_case
def test_metrics_know_their_direction(rules: str, kind: str) -> None:
    for name, metric in protocol(rules).metrics(TASKS[kind]).items():
        assert metric.higher_is_better is (name not in LOWER)


@every_case
def test_a_prediction_of_another_shape_is_refused(rules: str, kind: str) -> None:
    prediction, target = batch(kind, 2, 1)
    for metric in protocol(rules).metrics(TASKS[kind]).values():
        with pytest.raises(ValueError, match="expected the same shape"):
            metric.update(prediction[..., :-1], target)


@every_case
def test_metrics_start_again_after_a_reset(rules: str, kind: str) -> None:
    expected = measure(rules, kind, [batch(kind, 2, 2)])
    for name, metric in protocol(rules).metrics(TASKS[kind]).items():
        metric.update(*batch(kind, 2, 1))
        metric.reset()
        metric.update(*batch(kind, 2, 2))
        assert metric.compute().item() == pytest.approx(expected[name], rel=0, nan_ok=True)


def test_families_that_agree_after_the_first_batch_do_not_share() -> None:
    class Count(TotalsMetric):
        def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
            return target.new_tensor([len(target)])

        def compute(self) -> Tensor:
            return self.totals[0]

    class Batches(Count):
        def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
            return target.new_tensor([1])

    collection = MetricCollection({"pictures": Count("pictures", 1), "batches": Batches("batches", 1)})
    for size in (1, 3):  # a batch of one picture: both count 1
        collection.update(torch.zeros(size), torch.zeros(size))
    assert collection.compute() == {"pictures": 4, "batches": 2}


# --- the particulars of astmt


def test_a_class_that_occurs_nowhere_counts_zero() -> None:
    target = torch.tensor([[[0, 0, 1, 1]]])
    task = Segmentation("semseg", 4)
    metric = protocol("astmt").metrics(task)["miou"]
    metric.update(target, target)
    assert metric.compute().item() == 50


def test_the_saliency_threshold_is_chosen_after_averaging_over_pictures() -> None:
    # picture 1 is perfect only below 0.3, picture 2 only above 0.8: no threshold is perfect for both
    probability = torch.tensor([[[[0.31, 0.0]]], [[[0.91, 0.79]]]])
    target = torch.tensor([[[[1.0, 0.0]]], [[[1.0, 0.0]]]])
    assert measure("astmt", "saliency", [(probability, target)])["max_miou"] == pytest.approx(75)


def test_a_picture_without_foreground_counts_one_if_none_is_predicted() -> None:
    empty = torch.zeros(1, 1, 2, 2)
    assert measure("astmt", "saliency", [(empty, empty)]) == {"max_miou": 100, "max_f": 0}
    assert measure("astmt", "saliency", [(torch.ones(1, 1, 2, 2), empty)]) == {"max_miou": 0, "max_f": 0}


def test_an_edge_one_pixel_aside_is_no_hit() -> None:
    target = torch.zeros(1, 1, 4, 4)
    target[..., 1] = 1
    assert measure("astmt", "edges", [(target.roll(1, -1), target)])["max_pixel_f"] < 50


def test_a_probability_equal_to_the_threshold_is_no() -> None:
    metric = MaxIoU(torch.tensor([0.5], dtype=torch.float64))
    target = torch.ones(1, 1, 1, 2)
    metric.update(torch.tensor([0.5, 0.75]).view(1, 1, 1, 2), target)
    assert metric.compute().item() == 50


def test_a_normal_without_direction_is_a_right_angle_off() -> None:
    target = torch.tensor([0.0, 0, 1]).view(1, 3, 1, 1)
    assert measure("astmt", "normals", [(torch.zeros(1, 3, 1, 1), target)])["mean_angle"] == pytest.approx(90)


def test_small_angles_are_measured_exactly() -> None:
    angle = torch.tensor(math.radians(0.01), dtype=torch.float64)
    prediction = torch.stack([angle.sin(), torch.zeros(()).double(), angle.cos()]).view(1, 3, 1, 1)
    target = torch.tensor([0.0, 0, 1], dtype=torch.float64).view(1, 3, 1, 1)
    assert measure("astmt", "normals", [(prediction, target)])["mean_angle"] == pytest.approx(0.01, rel=1e-6)


def test_sums_of_many_pixels_do_not_lose_small_errors() -> None:
    metric = protocol("astmt").metrics(TASKS["depth"])["rmse"]
    target = torch.full((1, 1, 512, 512), 2.0)
    for _ in range(80):  # 2e7 pixels: single precision would stop counting at 1.7e7
        metric.update(target + 0.25, target)
    assert metric.compute().item() == 0.25


# --- names


def test_an_unknown_protocol_lists_the_known_ones() -> None:
    assert [PROTOCOLS[name].name for name in ("astmt", "mtan", "mtsam")] == list(PROTOCOLS)
    with pytest.raises(ConfigError, match="unknown protocol 'astm'; choose one of astmt, mtan, mtsam"):
        protocol("astm")


def test_a_kind_that_the_protocol_does_not_know_is_refused() -> None:
    class Heat(Depth):
        kind = "heat"

    with pytest.raises(ConfigError, match="task t: protocol astmt does not say how to measure the kind 'heat'"):
        protocol("astmt").metrics(Heat("t"))
    with pytest.raises(ConfigError, match=r"mtan does not say .* 'saliency'; it knows segmentation, depth, norm"):
        protocol("mtan").metrics(Saliency("saliency"))


@every_case
def test_names_of_metrics_can_name_modules(rules: str, kind: str) -> None:
    assert not any("." in name for name in protocol(rules).thorough().metrics(TASKS[kind]))


@every_case
def test_the_published_metrics_come_first(rules: str, kind: str) -> None:
    names = protocol(rules).published(TASKS[kind])
    assert names == tuple(protocol(rules).metrics(TASKS[kind]))[: len(names)]
    assert names == PUBLISHED.get((rules, kind), names[:1])


def test_a_protocol_says_where_a_run_departs_from_its_papers() -> None:
    fine, coarse, depth = Segmentation("semseg", 40), Segmentation("semseg", 13), Depth("depth")
    assert protocol("mtan").departures("nyuv2", [coarse, depth], (288, 384)) == []
    assert protocol("mtan").departures("nyuv2", [fine, depth], (480, 640)) == [
        "protocol mtan publishes 13 classes of semseg on nyuv2, this run has 40",
        "protocol mtan publishes results at 288 x 384 on nyuv2, this run compares at 480 x 640",
    ]
    assert protocol("astmt").departures("nyuv2", [coarse, depth], (448, 448)) == [
        "protocol astmt publishes 40 classes of semseg on nyuv2, this run has 13"
    ]
    assert protocol("mtsam").departures("pascal", [HumanParts("human_parts")], (1024, 1024)) == []
    assert protocol("mtan").departures("mine", [fine], (1, 1)) == []


@every_case
def test_a_protocol_says_how_it_averages(rules: str, kind: str) -> None:
    assert len(protocol(rules).kinds[kind].averaging) > 20
    assert "" not in (protocol(rules).source, protocol(rules).resolution)


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_a_metric_without_sums_or_result_says_what_to_define() -> None:
    class Nothing(TotalsMetric):
        pass

    target = BinaryMap.empty(2, 2)
    with pytest.raises(NotImplementedError, match="Nothing must say what a batch adds to its totals: define `sums`"):
        Nothing("nothing", 1).update(target, target)
    with pytest.raises(NotImplementedError, match=r"Nothing must derive .* define `compute`"):
        Nothing("nothing", 1).compute()


def test_metrics_are_torchmetrics() -> None:
    assert all(isinstance(m, Metric) for rules, kind in CASES for m in protocol(rules).metrics(TASKS[kind]).values())

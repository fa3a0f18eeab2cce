"""What mtan and mtsam find in small inputs that can be worked out by hand, and the median of many angles."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mt_core.protocols import protocol
from mt_core.protocols.batches import BatchMeans
from mt_core.protocols.median import BINS_PER_DEGREE, MedianAngle
from mt_core.tasks import Segmentation

from .protocol_literals import measure

Batch = tuple[Tensor, Tensor]


def normals(*degrees: float, pictures: int = 1, void: int = 0) -> Batch:
    """Predictions that far from their labels, in pictures of one row; the last `void` of the labels say nothing."""
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad().view(pictures, 1, 1, -1)
    target = torch.cat([torch.zeros_like(angle), torch.zeros_like(angle), torch.ones_like(angle)], 1)
    prediction = torch.cat([angle.sin(), torch.zeros_like(angle), angle.cos()], 1)
    target[..., target.shape[-1] - void :] = 0
    return prediction, target


def depths(label: float, *errors: float) -> Batch:
    target = torch.full((1, 1, 1, len(errors)), label)
    return target + torch.tensor(errors), target


# --- a class that is nowhere


@pytest.mark.parametrize(("rules", "miou"), [("astmt", 50), ("mtan", math.nan), ("mtsam", math.nan)])
def test_protocols_disagree_on_a_class_that_is_nowhere(rules: str, miou: float) -> None:
    target = torch.tensor([[[0, 0, 1, 1]]])
    metrics = protocol(rules).metrics(Segmentation("semseg", 4))
    for metric in metrics.values():
        metric.update(target, target)
    found = {name: metric.compute().item() for name, metric in metrics.items()}
    assert found.pop("miou") == pytest.approx(miou, nan_ok=True)
    assert set(found.values()) == {100}  # pixel accuracy, and the mean over the classes that are there


@pytest.mark.parametrize("rules", ["mtan", "mtsam"])
def test_a_class_that_is_only_predicted_counts_zero(rules: str) -> None:
    metric = protocol(rules).metrics(Segmentation("semseg", 2))["miou"]
    metric.update(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 0]]]))
    assert metric.compute().item() == 25  # half of class 0, none of class 1


# --- what batches weigh


def test_protocols_disagree_on_the_weight_of_a_batch() -> None:
    batches = [depths(2.0, 1.0, 1.0, 1.0), depths(4.0, 3.0)]
    mtan, mtsam = (measure(rules, "depth", batches) for rules in ("mtan", "mtsam"))
    assert (mtan["abs_err"], mtan["rel_err"]) == (1.5, 0.5625)  # (3 * 1 + 3) / 4, (3 * 0.5 + 0.75) / 4
    assert (mtsam["abs_err"], mtsam["rel_err"]) == (2.0, 0.625)  # (1 + 3) / 2, (0.5 + 0.75) / 2
    assert mtan["rmse"] == mtsam["rmse"] == math.sqrt(3)


def test_protocols_disagree_on_the_median() -> None:
    batches = [normals(1, 2, 3), normals(10, 20, 30, 40, 50)]
    mtan, mtsam = (measure(rules, "normals", batches) for rules in ("mtan", "mtsam"))
    assert mtan["median_angle"] == pytest.approx(15)  # of all eight: between 10 and 20
    assert mtsam["median_angle"] == pytest.approx(16)  # (2 + 30) / 2
    assert [x["mean_angle"] for x in (mtan, mtsam)] == pytest.approx([19.5, 16])
    assert [x["within_11_25"] for x in (mtan, mtsam)] == pytest.approx([50, 60])  # (100 + 20) / 2
    assert mtan["rmse_angle"] == mtsam["rmse_angle"] == pytest.approx(math.sqrt(5514 / 8))


def test_a_batch_is_its_pictures_together() -> None:
    pictures = normals(1, 2, 3, 10, 20, 60, pictures=2)
    assert measure("mtsam", "normals", [pictures])["median_angle"] == pytest.approx(6.5)
    alone = [(pictures[0][i : i + 1], pictures[1][i : i + 1]) for i in range(2)]
    assert measure("mtsam", "normals", alone)["median_angle"] == pytest.approx(11)


@pytest.mark.parametrize("rules", ["mtan", "mtsam"])
@pytest.mark.parametrize(("void", "median"), [(0, 3), (1, 2.5), (2, 2), (3, 1.5), (4, 1)])
def test_the_median_is_over_valid_pixels_and_between_the_two_middle_ones(rules: str, void: int, median: float) -> None:
    found = measure(rules, "normals", [normals(1, 2, 3, 4, 170, void=void)])
    assert found["median_angle"] == pytest.approx(median, rel=1e-6)


def test_a_prediction_below_a_millimetre_counts_as_one_in_logarithms() -> None:
    target = torch.ones(1, 1, 1, 2)
    for rules in ("astmt", "mtan", "mtsam"):
        found = measure(rules, "depth", [(torch.tensor([0.0, 0.001]).view_as(target), target)])
        assert found["rmse_log"] == pytest.approx(math.log(1000))
        assert found["delta3"] == 0


def test_deltas_are_powers_of_five_quarters() -> None:
    prediction = torch.tensor([1.24, 1.26, 1.56, 1.57, 1.95, 1.96, 1 / 1.26, 1 / 1.24]).view(1, 1, 2, 4)
    found = measure("mtan", "depth", [(prediction, torch.ones_like(prediction))])
    assert [found[f"delta{power}"] for power in (1, 2, 3)] == [25, 62.5, 87.5]


# --- the median of many


def many(count: int, seed: int) -> Batch:
    return normals(*(60 * torch.rand(count, generator=torch.Generator().manual_seed(seed))).tolist())


def test_few_angles_are_kept_and_their_median_is_exact() -> None:
    metric, batches = MedianAngle(), [many(501, 1), many(500, 2)]
    for batch in batches:
        metric.update(*batch)
    assert metric.angle_bins.sum() == 0
    assert metric.compute().item() == pytest.approx(measure("mtan", "normals", batches)["median_angle"], rel=1e-7)


@pytest.mark.parametrize("count", [1000, 1001])
def test_many_angles_are_counted_and_their_median_is_off_by_half_a_bin_at_most(count: int) -> None:
    metric, exact = MedianAngle(kept=300), MedianAngle()
    for start, size in ((0, 250), (1, 250), (2, count - 500)):
        metric.update(*many(size, start))
        exact.update(*many(size, start))
    assert (metric.angle_bins.sum(), len(metric._kept())) == (count, 0)
    assert abs(metric.compute() - exact.compute()) <= 0.5 / BINS_PER_DEGREE + 1e-5


def test_the_median_does_not_depend_on_how_many_angles_each_process_counted() -> None:
    batches = [many(250, k) for k in range(4)]
    one = MedianAngle(kept=600)
    for batch in batches:
        one.update(*batch)
    assert one.angle_bins.sum() > 0
    halves = [MedianAngle(kept=600) for _ in range(2)]
    for k, batch in enumerate(batches):
        halves[k % 2].update(*batch)
    assert all(half.angle_bins.sum() == 0 for half in halves)  # 500 each: they count nothing themselves
    joined = MedianAngle(kept=600)
    joined.kept_angles = torch.cat([half._kept() for half in halves])  # as torchmetrics joins a list
    joined._update_count = 1
    assert joined.compute() == one.compute()


def test_angles_of_a_half_turn_have_a_bin() -> None:
    metric = MedianAngle(kept=1)
    metric.update(*normals(180, 180, 180))
    assert metric.compute().item() == pytest.approx(180, abs=1e-3)


def test_the_names_of_what_is_averaged_over_batches_are_needed() -> None:
    class Nothing(BatchMeans):
        pass

    with pytest.raises(NotImplementedError, match="Nothing must say what counts of a batch: define `values`"):
        Nothing("nothing", 1, 0).update(*depths(1.0, 0.0))

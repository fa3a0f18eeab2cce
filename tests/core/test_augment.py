"""Joint augmentation: labels follow their picture, and their values follow the geometry of a pinhole camera."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from mt_core.augment import (
    Augment,
    ColourJitter,
    RandomFlip,
    RandomRotation,
    RandomZoom,
    Resize,
    Transform,
    evaluation_transform,
    register_label,
    seeded,
    training_transform,
)
from mt_core.augment.kernels import rotate_image
from mt_core.dataset import Sample
from mt_core.errors import ConfigError, DataError, PluginError
from mt_core.labels import BinaryMap, ClassMap, DepthMap, Label, NormalMap

H, W, FOCAL = 96, 128, 110.0
TILTED = torch.nn.functional.normalize(torch.tensor([0.35, 0.5, 0.8]), dim=0)

LABELS: tuple[type[Label], ...] = (ClassMap, BinaryMap, DepthMap, NormalMap)
every_label = pytest.mark.parametrize("label", LABELS)


def grid(height: int = H, width: int = W) -> tuple[Tensor, Tensor]:
    """Pixel centres from the middle of the picture: x to the right, y up."""
    y = (height - 1) / 2 - torch.arange(height).double().unsqueeze(1).expand(height, width)
    x = torch.arange(width).double().expand(height, width) - (width - 1) / 2
    return x, y


def plane(normal: Tensor, distance: float = 3.0) -> tuple[Tensor, Tensor]:
    """Depth (1, H, W) and normals (3, H, W) of a plane as a camera sees it that looks along -z."""
    x, y = grid()
    n = normal.double()
    depth = distance / (n[2] - n[0] * x / FOCAL - n[1] * y / FOCAL)
    assert (depth > 0).all()
    return depth.float().unsqueeze(0), normal.view(3, 1, 1).expand(3, H, W).clone()


def rolled(normal: Tensor, degrees: float) -> Tensor:
    """The normal after the scene has turned counter-clockwise in the picture."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.stack([c * normal[0] - s * normal[1], s * normal[0] + c * normal[1], normal[2]])


def steepest(depth: Tensor) -> float:
    """The largest change of depth over a step to a neighbouring pixel, in metres."""
    return float(max(depth.diff(dim=-1).abs().max(), depth.diff(dim=-2).abs().max()))


def random_label(label: type[Label], height: int = 12, width: int = 14, seed: int = 0) -> Label:
    g = torch.Generator().manual_seed(seed)
    values = {
        ClassMap: torch.randint(0, 20, (height, width), generator=g),
        BinaryMap: torch.randint(0, 2, (1, height, width), generator=g).float(),
        DepthMap: 1 + torch.rand(1, height, width, generator=g),
        NormalMap: torch.nn.functional.normalize(torch.randn(3, height, width, generator=g), dim=0),
    }[label]
    void = torch.rand(height, width, generator=g) < 0.2
    return label(values.masked_fill(void, label.void))


def random_sample(height: int = 12, width: int = 14, seed: int = 0) -> Sample:
    g = torch.Generator().manual_seed(seed)
    image = tv_tensors.Image(torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=g))
    return Sample("p", image, {label.__name__: random_label(label, height, width, seed) for label in LABELS})


def ramp_sample() -> Sample:
    """A picture whose red is the column and whose green is the row, with labels that say the same."""
    column = torch.arange(W).expand(H, W)
    row = torch.arange(H).unsqueeze(1).expand(H, W)
    image = torch.stack([column, row, torch.full((H, W), 128)]).to(torch.uint8)
    return Sample("ramp", tv_tensors.Image(image), {"column": ClassMap(column), "row": ClassMap(row)})


def plain(label: Tensor) -> Tensor:
    return label.as_subclass(Tensor)


# --- geometry, against a camera


@pytest.mark.parametrize("degrees", [-90.0, -35.0, -10.0, 5.0, 20.0, 45.0, 180.0])
def test_a_rotation_is_what_a_rolled_camera_sees(degrees: float) -> None:
    depth, normals = plane(TILTED)
    expected_depth, expected_normals = plane(rolled(TILTED, degrees))
    turned_depth, turned_normals = F.rotate(DepthMap(depth), degrees), F.rotate(NormalMap(normals), degrees)
    inside = DepthMap.valid(turned_depth)
    assert torch.equal(NormalMap.valid(turned_normals), inside)
    assert inside.float().mean() > 0.5
    assert (plain(turned_depth) - expected_depth)[0][inside].abs().max() <= steepest(depth)
    torch.testing.assert_close(plain(turned_normals)[:, inside], expected_normals[:, inside])


@pytest.mark.parametrize("degrees", [-30.0, 15.0, 90.0])
def test_the_opposite_rotation_would_be_far_off(degrees: float) -> None:
    depth, _ = plane(TILTED)
    expected, _ = plane(rolled(TILTED, -degrees))
    turned = F.rotate(DepthMap(depth), degrees)
    assert (plain(turned) - expected)[0][DepthMap.valid(turned)].abs().max() > 10 * steepest(depth)


def test_a_flip_is_what_a_mirror_shows() -> None:
    depth, normals = plane(TILTED)
    expected_depth, expected_normals = plane(TILTED * torch.tensor([-1.0, 1, 1]))
    torch.testing.assert_close(plain(F.horizontal_flip(DepthMap(depth))), expected_depth)
    torch.testing.assert_close(plain(F.horizontal_flip(NormalMap(normals))), expected_normals)


def test_a_zoom_on_a_surface_that_faces_the_camera_is_a_step_towards_it() -> None:
    def seen(distance: float) -> tuple[Tensor, Tensor]:
        stripes = (grid()[0] / FOCAL * distance / 0.4).floor().long() % 2
        return stripes, torch.full((1, H, W), distance)

    (stripes, depth), (expected_stripes, expected_depth) = seen(4.0), seen(2.0)
    window = (H // 4, W // 4, H // 2, W // 2, [H, W])
    torch.testing.assert_close(plain(F.resized_crop(DepthMap(depth), *window)), expected_depth)
    assert (plain(F.resized_crop(ClassMap(stripes), *window)) == expected_stripes).float().mean() > 0.95


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0, 1.6, 2.0])
def test_a_zoom_divides_depth_by_its_factor_and_leaves_normals(factor: float) -> None:
    depth, normals = plane(TILTED)
    sample = Sample("p", tv_tensors.Image(torch.zeros(3, H, W, dtype=torch.uint8)))
    sample.labels = {"depth": DepthMap(depth), "normals": NormalMap(normals)}
    zoomed = RandomZoom(factor, factor)(sample, seeded(3))
    inside = DepthMap.valid(zoomed.labels["depth"])
    assert inside.float().mean() == pytest.approx(min(1, factor**2), abs=0.02)
    found = plain(zoomed.labels["depth"])[0][inside]
    span = max(1, factor)  # of what is seen of the plane
    assert found.min() >= depth.min() / factor * 0.99
    assert found.max() <= depth.max() / factor * 1.01
    assert steepest(plain(zoomed.labels["depth"])[:, 20:40, 30:60]) <= steepest(depth) / factor * span
    torch.testing.assert_close(plain(zoomed.labels["normals"])[:, inside], normals[:, inside])


def test_a_zoom_and_a_change_of_size_divide_depth_by_the_zoom_only() -> None:
    depth = torch.full((1, H, W), 6.0)
    sample = Sample("p", tv_tensors.Image(torch.zeros(3, H, W, dtype=torch.uint8)), {"depth": DepthMap(depth)})
    assert (plain(Resize((50, 70))(sample, seeded(0)).labels["depth"]) == 6).all()
    zoomed = plain(RandomZoom(2, 2, (50, 70))(sample, seeded(0)).labels["depth"])
    torch.testing.assert_close(zoomed, torch.full((1, 50, 70), 3.0))


# --- pictures and labels stay together


@pytest.mark.parametrize("seed", range(12))
def test_labels_stay_with_the_pixels_of_their_picture(seed: int) -> None:
    transform = training_transform((80, 100), rotation=30, zoom=(0.7, 1.4))
    moved = transform(ramp_sample(), seeded(seed))
    column, row = plain(moved.labels["column"]), plain(moved.labels["row"])
    inside = (column != 255) & (column > 2) & (column < W - 3) & (row > 2) & (row < H - 3)
    inside &= torch.nn.functional.max_pool2d((column == 255).float()[None], 5, 1, 2)[0] == 0  # frames are blended
    image = moved.image.as_subclass(Tensor).float()
    assert inside.sum() > 1000
    # half a pixel for each of two nearest choices along both axes, and the rounding of pictures
    assert (image[0] - column)[inside].abs().max() <= 2.5
    assert (image[1] - row)[inside].abs().max() <= 2.5
    assert (image[0] - column)[inside].mean().abs() < 0.1
    assert (image[1] - row)[inside].mean().abs() < 0.1


@pytest.mark.parametrize("size", [(48, 64), (31, 50), (192, 256), (96, 128)])
def test_resized_labels_lie_under_their_resized_picture(size: tuple[int, int]) -> None:
    resized = Resize(size)(ramp_sample(), seeded(0))
    image = resized.image.as_subclass(Tensor).float()
    inner = (slice(4, -4), slice(4, -4))
    assert (image[0] - plain(resized.labels["column"]))[inner].abs().max() <= 1
    assert (image[1] - plain(resized.labels["row"]))[inner].abs().max() <= 1


def test_a_picture_that_shrinks_is_averaged() -> None:
    board = (torch.arange(64).view(1, 64, 1) + torch.arange(64)).remainder(2).mul(255).expand(3, -1, -1)
    shrunk = Resize((16, 16))(Sample("p", tv_tensors.Image(board.to(torch.uint8))), seeded(0))
    assert (shrunk.image.as_subclass(Tensor).float() - 127.5).abs().max() < 8


def test_a_class_map_that_shrinks_keeps_the_middle_pixel() -> None:
    assert plain(F.resize(ClassMap(torch.arange(9).expand(3, 9)), [1, 3])).tolist() == [[1, 4, 7]]


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_right_angles_move_every_pixel(turns: int) -> None:
    label = random_label(ClassMap, 13, 13)
    assert torch.equal(plain(F.rotate(label, 90.0 * turns)), plain(label).rot90(turns, (-2, -1)))


def test_four_right_angles_bring_normals_back() -> None:
    label = turned = random_label(NormalMap, 13, 13)
    for _ in range(4):
        turned = F.rotate(turned, 90.0)
    torch.testing.assert_close(plain(turned), plain(label), rtol=0, atol=1e-6)


# --- void


@every_label
def test_corners_of_a_rotated_label_are_void(label: type[Label]) -> None:
    full = label(torch.ones((*label.planes, 40, 40)) / max(1, sum(label.planes)) ** 0.5)
    valid = label.valid(F.rotate(full, 45.0))
    assert not any(valid[y, x] for y in (0, -1) for x in (0, -1))
    assert valid[8:32, 8:32].all()


@every_label
def test_what_lies_beyond_a_picture_that_shrank_is_void(label: type[Label]) -> None:
    full = label(torch.ones((*label.planes, 20, 30)) / max(1, sum(label.planes)) ** 0.5)
    sample = Sample("p", tv_tensors.Image(torch.full((3, 20, 30), 200, dtype=torch.uint8)), {"it": full})
    small = RandomZoom(0.5, 0.5)(sample, seeded(1))
    valid = label.valid(small.labels["it"])
    assert valid.sum() == 10 * 15
    assert (small.image.as_subclass(Tensor)[:, ~valid] < 200).all()


@pytest.mark.parametrize(
    ("top", "left", "shown"),
    [
        (-1, 0, [[255, 255], [0, 1]]),
        (0, -1, [[255, 0], [255, 2]]),
        (1, 0, [[2, 3], [255, 255]]),
        (0, 1, [[1, 255], [3, 255]]),
    ],
)
def test_a_window_over_one_border_is_void_beyond_it(top: int, left: int, shown: list[list[int]]) -> None:
    label = ClassMap(torch.tensor([[0, 1], [2, 3]]))
    assert plain(F.resized_crop(label, top, left, 2, 2, [2, 2])).tolist() == shown


@every_label
def test_padding_is_void(label: type[Label]) -> None:
    original = random_label(label, 5, 6)
    padded = F.pad(original, [1, 2, 3, 4])
    assert type(padded) is label
    assert padded.shape[-2:] == (11, 10)
    assert torch.equal(plain(padded)[..., 2:7, 1:7], plain(original))
    assert label.valid(padded).sum() == label.valid(original).sum()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    label=st.sampled_from(LABELS),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    angle=st.floats(-180, 180),
)
def test_labels_are_chosen_and_never_blended(
    seed: int, label: type[Label], size: tuple[int, int], angle: float
) -> None:
    original = random_label(label, seed=seed)
    for moved in (F.resize(original, list(size)), F.rotate(original, angle), F.horizontal_flip(original)):
        assert type(moved) is label
        assert moved.dtype == label.dtype_
        if label is NormalMap:
            lengths = plain(moved).norm(dim=0)
            torch.testing.assert_close(lengths, lengths.round(), rtol=0, atol=1e-5)  # 0 or 1
        else:
            assert set(plain(moved).flatten().tolist()) <= {*plain(original).flatten().tolist(), float(label.void)}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), height=st.integers(1, 9), width=st.integers(1, 9))
def test_a_second_flip_undoes_the_first_and_none_adds_or_loses_a_valid_pixel(
    seed: int, height: int, width: int
) -> None:
    sample = random_sample(height, width, seed)
    once = RandomFlip(1.0)(sample, seeded(0))
    twice = RandomFlip(1.0)(once, seeded(0))
    assert torch.equal(twice.image, sample.image)
    for label in LABELS:
        before, between, after = (s.labels[label.__name__] for s in (sample, once, twice))
        assert torch.equal(plain(after), plain(before))
        assert label.valid(between).sum() == label.valid(before).sum()


@every_label
def test_a_batch_of_labels_moves_like_each_of_them(label: type[Label]) -> None:
    first, second = random_label(label, seed=1), random_label(label, seed=2)
    both = label(torch.stack([plain(first), plain(second)]))
    moves: tuple[Callable[[Any], Any], ...] = (
        F.horizontal_flip,
        lambda x: F.rotate(x, 25.0),
        lambda x: F.resized_crop(x, -2, 3, 9, 9, [11, 7]),
    )
    for move in moves:
        assert torch.equal(plain(move(both)), torch.stack([plain(move(first)), plain(move(second))]))


@every_label
def test_a_move_leaves_the_original_as_it_was(label: type[Label]) -> None:
    original = random_label(label)
    copy = plain(original).clone()
    for move in (F.horizontal_flip, lambda x: F.rotate(x, 25.0), lambda x: F.resized_crop(x, 1, 1, 5, 5, [12, 14])):
        move(original)
        assert torch.equal(plain(original), copy)


# --- chance


def same(a: Sample, b: Sample) -> bool:
    return torch.equal(a.image, b.image) and all(torch.equal(plain(a.labels[k]), plain(b.labels[k])) for k in a.labels)


ALL = training_transform((10, 12), rotation=20, zoom=(0.75, 1.25), jitter=0.4)


def test_the_seed_decides_everything() -> None:
    sample = random_sample()
    before = torch.get_rng_state()
    assert same(ALL(sample, seeded(1, 2, 3)), ALL(sample, seeded(1, 2, 3)))
    assert torch.equal(torch.get_rng_state(), before)
    results = [ALL(sample, seeded(*key)) for key in ((1, 2, 3), (1, 2, 4), (1, 3, 2), (2, 2, 3), (1, 2), (1, 2, 0))]
    assert not any(same(a, b) for i, a in enumerate(results) for b in results[:i])


def test_a_transform_travels_to_workers() -> None:
    sample = random_sample()
    assert same(pickle.loads(pickle.dumps(ALL))(sample, seeded(5)), ALL(sample, seeded(5)))  # noqa: S301


def test_half_of_the_pictures_are_mirrored() -> None:
    sample = random_sample()
    mirrored = sum(not same(RandomFlip()(sample, seeded(0, i)), sample) for i in range(400))
    assert 160 < mirrored < 240


def test_draws_fill_their_ranges() -> None:
    depth = Sample("p", tv_tensors.Image(torch.zeros(3, 60, 60, dtype=torch.uint8)))
    depth.labels = {"depth": DepthMap(torch.ones(1, 60, 60))}
    factors = [1 / plain(RandomZoom(0.5, 2)(depth, seeded(i)).labels["depth"]).max().item() for i in range(200)]
    assert 0.49 < min(factors) < 0.55
    assert 1.9 < max(factors) < 2.05


def test_windows_are_everywhere() -> None:
    corners = {
        tuple(plain(RandomZoom(2, 2)(ramp_sample(), seeded(i)).labels[name])[0, 0].item() for name in ("row", "column"))
        for i in range(60)
    }
    rows, columns = zip(*corners, strict=True)
    assert min(rows) < 8
    assert max(rows) > H // 2 - 8
    assert min(columns) < 8
    assert max(columns) > W // 2 - 8


def test_evaluation_leaves_the_generator_alone_and_only_resizes() -> None:
    generator = seeded(0)
    state = generator.get_state()
    sample = evaluation_transform((7, 9))(random_sample(), generator)
    assert torch.equal(generator.get_state(), state)
    assert {tuple(label.shape[-2:]) for label in sample.labels.values()} == {tuple(sample.image.shape[-2:])} == {(7, 9)}
    same_size = random_sample()
    assert same(evaluation_transform((12, 14))(same_size, generator), same_size)


def test_training_contains_only_what_is_asked_for() -> None:
    def kinds(transform: Augment) -> list[type]:
        return [type(step) for step in transform.transforms]

    assert kinds(training_transform((4, 4), flip=False)) == [Resize]
    assert kinds(ALL) == [RandomFlip, RandomRotation, RandomZoom, ColourJitter]


def literal_jitter(image: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    """One after the other, each a blend, in double precision."""
    luma = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(3, 1, 1)
    x = brightness * image.double()
    x = contrast * x + (1 - contrast) * (luma * x).sum(0).mean()
    x = saturation * x + (1 - saturation) * (luma * x).sum(0)
    return x.clamp(0, 255)


def test_jitter_is_a_blend_with_black_with_the_mean_and_with_grey() -> None:
    sample = random_sample()
    for seed in range(5):
        generator = seeded(seed)
        factors = [0.5 + torch.rand((), generator=generator).item() for _ in range(3)]
        changed = ColourJitter(0.5, 0.5, 0.5)(sample, seeded(seed)).image.as_subclass(Tensor)
        expected = literal_jitter(sample.image.as_subclass(Tensor), *factors)
        assert (changed - expected).abs().max() < 0.51


@pytest.mark.parametrize("degrees", [0.0, -17.0, 33.3, 90.0])
def test_a_picture_is_rotated_as_torchvision_does(degrees: float) -> None:
    image = random_sample(61, 80).image
    expected = F.rotate(image, degrees, interpolation=F.InterpolationMode.BILINEAR)
    turned = rotate_image(image, degrees)
    assert isinstance(turned, tv_tensors.Image)
    assert (turned.as_subclass(Tensor).int() - expected.as_subclass(Tensor).int()).abs().max() <= 1


def test_jitter_changes_the_picture_and_no_label() -> None:
    sample = random_sample()
    for jitter in (ColourJitter(brightness=0.5), ColourJitter(contrast=0.5), ColourJitter(saturation=0.5)):
        changed = jitter(sample, seeded(1))
        assert not torch.equal(changed.image, sample.image)
        assert changed.image.dtype == torch.uint8
        assert changed.labels is sample.labels


# --- label types of others, and refusals


class Strange(Label):
    """A type that nothing is registered for."""

    void, planes, dtype_ = 0.0, (1,), torch.float32


MOVING: tuple[tuple[Transform, str], ...] = (
    (RandomFlip(1.0), "horizontal_flip"),
    (RandomRotation(10), "rotate"),
    (RandomZoom(0.8, 0.9), "resized_crop"),
    (Resize((5, 5)), "resize"),
)


@pytest.mark.parametrize(("transform", "operation"), MOVING, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize(
    ("label", "name"),
    [
        (Strange(torch.zeros(1, 12, 14)), "Strange"),
        (torch.zeros(1, 12, 14), "Tensor"),
        (tv_tensors.Mask(torch.zeros(12, 14)), "Mask"),
    ],
)
def test_a_label_without_a_kernel_is_an_error_that_names_type_and_operation(
    transform: Transform, operation: str, label: Any, name: str
) -> None:
    sample = random_sample()
    sample.labels = {"mine": label}
    with pytest.raises(PluginError, match=f"p: the label of task mine, a {name}, cannot follow `{operation}`") as error:
        transform(sample, seeded(0))
    remedy = "give its type kernels: mt_core.augment.register_label" if name == "Strange" else "make it one that says"
    assert remedy in str(error.value)


def test_a_third_partys_label_moves_once_it_is_registered() -> None:
    class Heat(Label):
        void, planes, dtype_ = -1.0, (1,), torch.float32

        @classmethod
        def valid(cls, values: Tensor) -> Tensor:
            return values[..., 0, :, :] >= 0

    def cooler(label: Label, **options: Any) -> Label:
        return Heat(plain(label).flip(-1) / 2)

    register_label(Heat, horizontal_flip=cooler)
    sample = random_sample()
    sample.labels = {"heat": Heat(torch.ones(1, 12, 14))}
    assert (plain(RandomFlip(1.0)(sample, seeded(0)).labels["heat"]) == 0.5).all()
    assert plain(F.rotate(sample.labels["heat"], 45.0)).min() == -1
    with pytest.raises(ValueError, match="already has a kernel"):
        register_label(Heat)


def test_a_label_registered_for_an_unknown_functional_is_refused() -> None:
    class Odd(Label):
        void, planes, dtype_ = 0.0, (1,), torch.float32

    with pytest.raises(ValueError, match="Could not find functional with name 'swirl'"):
        register_label(Odd, swirl=lambda label: label)


def test_a_type_derived_from_a_label_moves_like_it() -> None:
    class Finer(NormalMap):
        pass

    flipped = F.horizontal_flip(Finer(torch.tensor([1.0, 0, 0]).view(3, 1, 1)))
    assert type(flipped) is Finer
    assert plain(flipped).flatten().tolist() == [-1, 0, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: F.rotate(x, 10.0, expand=True), "labels rotate about their centre and keep their size"),
        (lambda x: F.rotate(x, 10.0, center=[0.0, 0.0]), "expand and center are not supported"),
        (lambda x: F.resize(x, [4, 4], max_size=5), "labels are resized to a height and a width"),
        (lambda x: F.pad(x, [1, 1, 1, 1], padding_mode="reflect"), "labels are padded with void, by four numbers"),
        (lambda x: F.pad(x, [1]), "labels are padded with void, by four numbers"),
    ],
)
def test_options_that_labels_cannot_follow_are_refused(call: Callable[[Label], Label], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call(random_label(ClassMap))


def test_a_label_of_another_size_than_its_picture_is_refused() -> None:
    sample = random_sample()
    sample.labels["depth"] = DepthMap(torch.ones(1, 5, 6))
    with pytest.raises(DataError, match=r"p: the label of task depth is \(5, 6\), the picture \(12, 14\)"):
        evaluation_transform((4, 4))(sample, seeded(0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomFlip(1.5), r"flip: probability 1\.5"),
        (lambda: RandomRotation(-1), "rotation of -1 degrees"),
        (lambda: RandomRotation(math.nan), "rotation of nan degrees"),
        (lambda: RandomZoom(0, 1), "zoom from 0 to 1"),
        (lambda: RandomZoom(2, 1), "zoom from 2 to 1"),
        (lambda: RandomZoom(1, math.inf), "zoom from 1 to inf"),
        (lambda: RandomZoom(1, 2, (0, 5)), r"size \(0, 5\)"),
        (lambda: Resize((5, -1)), r"size \(5, -1\); expected a positive height and width"),
        (lambda: Resize((5,)), r"size \(5,\)"),  # type: ignore[arg-type]
        (lambda: ColourJitter(contrast=1.5), r"jitter: contrast 1\.5"),
    ],
)
def test_options_out_of_range_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


# --- label types


@every_label
def test_a_label_is_cast_to_its_own_dtype(label: type[Label]) -> None:
    made = label(torch.ones((*label.planes, 2, 2), dtype=torch.uint8).numpy())
    assert type(made) is label
    assert made.dtype == label.dtype_

"""Normals from depth and a camera, and edges from classes: exact where they can be, else close to given ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mt_datasets.files import read_depth, read_normals
from mt_datasets.label_edges import edges_from_classes
from mt_datasets.nyu_official import CAMERA
from mt_datasets.pinhole import Pinhole, normals_from_depth
from mt_datasets.rooms import render

from .test_rooms_renderer import room

SQUARE = Pinhole((48, 64), focal=(52.0, 53.0), centre=(30.0, 25.0))


def plane(normal: NDArray[np.float64], distance: float, camera: Pinhole, size: tuple[int, int]) -> NDArray[np.float32]:
    """Depth of the plane n . X = -distance, n in the label's frame: x right, y up, z towards the camera."""
    x, y = camera.rays(*size)
    along = normal[0] * x - normal[1] * y[:, None] - normal[2]  # n . ray per metre of depth
    return np.asarray(-distance / along, np.float32)


@settings(max_examples=30, deadline=None)
@given(
    x=st.floats(-0.6, 0.6), y=st.floats(-0.6, 0.6), distance=st.floats(0.5, 6), scale=st.sampled_from([0.5, 1.0, 1.6])
)
def test_the_normals_of_a_plane_are_its_own_at_every_size_of_the_picture(
    x: float, y: float, distance: float, scale: float
) -> None:
    normal = np.array([x, y, 1.0]) / np.linalg.norm([x, y, 1.0])
    size = (round(48 * scale), round(64 * scale))
    found = normals_from_depth(plane(normal, distance, SQUARE, size), SQUARE)
    known = found.any(0)  # a plane that is nearly edge-on falls off too steeply at a corner
    assert known.mean() > 0.98
    np.testing.assert_allclose(found[:, known], np.broadcast_to(normal[:, None], (3, known.sum())), atol=2e-3)


def test_missing_depth_has_no_normal_and_does_not_disturb_its_neighbours() -> None:
    normal = np.array([0.0, 0.6, 0.8])
    depth = plane(normal, 2.0, SQUARE, (48, 64))
    depth[10:20, 30:40] = 0
    found = normals_from_depth(depth, SQUARE)
    assert (found[:, 10:20, 30:40] == 0).all()
    np.testing.assert_allclose(normal @ found[:, depth > 0], 1, atol=1e-5)


def test_a_step_in_depth_belongs_to_neither_side() -> None:
    near, far = (plane(np.array([0.0, 0.0, 1.0]), distance, SQUARE, (48, 64)) for distance in (1.0, 2.0))
    depth = np.where(np.arange(64) < 32, near, far)
    np.testing.assert_allclose(normals_from_depth(depth, SQUARE)[2], 1, atol=1e-5)


def test_a_single_pixel_and_a_picture_without_depth_have_no_normals() -> None:
    for size in ((1, 1), (1, 9), (12, 9)):
        assert not normals_from_depth(np.zeros(size, np.float32), SQUARE).any()
    assert not normals_from_depth(np.ones((1, 9), np.float32), SQUARE).any()  # in one line


def test_normals_of_rooms_are_those_of_their_renderer() -> None:
    """A quarter of a degree in the median, and 15 degrees for 80 % of the pixels: the others are near an edge."""
    scene, camera = room(3)
    shot = render(scene, camera, 120, 160)
    pinhole = Pinhole((120, 160), focal=(120 * camera.focal,) * 2, centre=(79.5, 59.5))
    found = normals_from_depth(shot.depth, pinhole).transpose(1, 2, 0)
    angles = np.degrees(np.arccos(np.clip((found * shot.normals).sum(-1), -1, 1)))
    assert np.median(angles) < 0.25
    assert (angles < 15).mean() > 0.8


def test_normals_of_a_real_frame_are_close_to_those_that_were_published_with_it(samples: Path) -> None:
    root = samples / "nyuv2" / "NYUD_MT"
    given_ = read_normals(root / "normals/0433.png")
    found = normals_from_depth(read_depth(root / "depth/0433.npy")[0], CAMERA)
    both = given_.any(0) & found.any(0)
    angles = np.degrees(np.arccos(np.clip((given_ * found).sum(0)[both], -1, 1)))
    assert both.mean() > 0.6
    assert np.median(angles) < 3
    assert angles.mean() < 5


def test_edges_lie_between_classes_and_are_unknown_beside_what_is_not_annotated() -> None:
    classes = np.array([[1, 1, 2, 2], [1, 1, 2, 255], [1, 1, 2, 2], [3, 3, 3, 3]])
    assert edges_from_classes(classes)[0].astype(int).tolist() == [
        [0, 1, 0, 255],
        [0, 1, 255, 255],
        [1, 1, 1, 1],
        [0, 0, 0, 0],
    ]


@pytest.mark.parametrize("width", range(1, 9))
def test_across_a_strip_that_is_not_annotated_the_edge_is_one_line_in_its_middle(width: int) -> None:
    classes = np.full((480, 40), 1)
    classes[:, 10 : 10 + width], classes[:, 10 + width :] = 255, 2
    edges = edges_from_classes(classes)[0]
    assert (edges == 1).sum(1).tolist() == [1] * 480
    assert abs(int((edges[0] == 1).argmax()) - (9 + width / 2)) <= 1
    assert (edges[:, 10 : 10 + width] != 0).all()


def test_what_is_far_from_anything_annotated_has_no_edges() -> None:
    classes = np.full((480, 60), 255)
    classes[:, :5], classes[:, 50:] = 1, 2
    edges = edges_from_classes(classes)[0]
    assert not (edges == 1).any()
    assert (edges_from_classes(np.full((4, 5), 255)) == 255).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), height=st.integers(1, 9), width=st.integers(1, 9), void=st.booleans())
def test_edges_equal_a_literal_walk_over_the_pixels(seed: int, height: int, width: int, void: bool) -> None:
    """Where a pixel and its neighbours are annotated; anywhere else it is an edge or void, and never 0."""
    classes = np.random.default_rng(seed).choice([0, 1, 2, 255] if void else [0, 1, 2], (height, width))
    found = edges_from_classes(classes)[0]
    for i in range(height):
        for j in range(width):
            beside = [classes[k, m] for k, m in ((i, j + 1), (i + 1, j)) if k < height and m < width]
            here = classes[i, j]
            if here != 255 and any(other not in (here, 255) for other in beside):
                assert found[i, j] == 1
            elif 255 in (here, *beside):
                assert found[i, j] in (1, 255)
            else:
                assert found[i, j] == 0

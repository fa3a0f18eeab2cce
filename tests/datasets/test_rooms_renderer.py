"""The rooms renderer: exact labels against a literal ray caster, camera transforms, and rooms that make sense."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from mt_datasets.rooms import (
    CLASSES,
    THINGS,
    Camera,
    Frame,
    Light,
    Scene,
    frame,
    render,
    sample_camera,
    sample_scene,
    shadow,
)
from mt_datasets.rooms.primitives import Array, Box, Ellipsoid, Frustum, Plane, Primitive
from mt_datasets.rooms.raycast import cast, describe
from mt_datasets.rooms.shadow import reached, smooth
from mt_datasets.rooms.textures import Material

from . import literal_rays

LABELS = ("semseg", "depth", "normals", "saliency", "edges")
GREY = Material((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def room(index: int, seed: int = 11) -> tuple[Scene, Camera]:
    rng = np.random.default_rng((seed, index))
    scene = sample_scene(rng)
    return scene, sample_camera(rng, scene)


def still_life(light: Light) -> Scene:
    """A floor, and on it a tilted box, a lying egg and a lamp-shade; every kind of shape in one small scene."""
    parts = (
        Primitive(Plane(), (0, 0, 0), (1, 1, 1), GREY),
        Primitive(Plane(), (0, 1.5, -3), (1, 1, 1), GREY, tilt=np.pi / 2),
        Primitive(Box(), (-0.8, 0.5, -0.6), (0.3, 0.4, 0.2), GREY, yaw=0.7, tilt=0.3),
        Primitive(Ellipsoid(), (0.1, 0.3, -0.2), (0.4, 0.3, 0.25), GREY, yaw=-0.4),
        Primitive(Frustum(0.4), (0.9, 0.5, -0.8), (0.4, 0.5, 0.4), GREY),
        Primitive(Frustum(1.6), (0.2, 0.35, -1.6), (0.2, 0.35, 0.2), GREY, yaw=0.2, tilt=0.5),
    )
    owners, classes = (0, 1, 2, 3, 4, 5), (0, 1, 11, 13, 12, 13)
    return Scene((6, 3, 6), parts, owners, classes, (light,), (0.3, 0.3, 0.3), 0.4, 0.0, 0)


def view() -> Camera:
    return Camera.looking((0.1, 1.4, 2.2), yaw=0.05, pitch=-0.35, roll=0.04, focal=0.9)


LAMP = Light((-2.0, 1.8, 0.5), (1.5, 1.4, 1.2), radius=0.0)


def agree(actual: Frame, expected: Frame) -> dict[str, float]:
    """Share of the pixels on which each label is the same, to float32's precision."""
    same = {}
    for name in LABELS:
        equal = np.isclose(
            getattr(actual, name).astype(float), getattr(expected, name).astype(float), rtol=1e-5, atol=1e-5
        )
        same[name] = float(equal.reshape(*equal.shape[:2], -1).all(axis=2).mean())
    return same


def moved(labels: Frame, pixels: object, turn: Array) -> Frame:
    """A frame with its pixels moved by a function and its normals turned by a matrix."""
    arrays = {name: np.ascontiguousarray(pixels(getattr(labels, name))) for name in ("image", *LABELS)}  # type: ignore[operator]
    arrays["normals"] = (arrays["normals"] @ turn.T).astype(np.float32)
    return Frame(**arrays)


def test_a_picture_is_always_the_same_and_its_neighbours_are_others() -> None:
    one, again, other_index, other_seed = (frame(s, i, 30, 40) for s, i in ((4, 9), (4, 9), (4, 10), (5, 9)))
    for name in ("image", *LABELS):
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
    assert (one.depth != other_index.depth).mean() > 0.9
    assert (one.depth != other_seed.depth).mean() > 0.9


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 31), (64, 20), (45, 45)])
def test_any_rectangular_size_gives_arrays_of_the_stated_kinds(height: int, width: int) -> None:
    shot = frame(0, 3, height, width)
    assert {n: getattr(shot, n).dtype.name for n in ("image", *LABELS)} == {
        "image": "uint8", "semseg": "uint8", "saliency": "uint8", "edges": "uint8",
        "depth": "float32", "normals": "float32",
    }  # fmt: skip
    assert shot.image.shape == shot.normals.shape == (height, width, 3)
    assert shot.semseg.shape == shot.depth.shape == shot.saliency.shape == shot.edges.shape == (height, width)
    assert shot.semseg.max() < len(CLASSES)
    assert np.isfinite(shot.depth).all()
    assert shot.depth.min() > 0
    assert set(np.unique(shot.saliency)) | set(np.unique(shot.edges)) <= {0, 1}
    np.testing.assert_allclose(np.linalg.norm(shot.normals, axis=2), 1, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(0, 8), (8, 0), (-1, 8)])
def test_a_size_below_one_pixel_is_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"found height {height} and width {width}, expected both at least 1"):
        frame(0, 0, height, width)


@pytest.mark.parametrize("index", [None, 0, 1, 2, 3])
def test_primitive_depth_and_normals_equal_those_of_a_literal_ray_caster(index: int | None) -> None:
    scene, camera = (still_life(LAMP), view()) if index is None else room(index)
    height, width = (36, 48) if index is None else (12, 16)
    depth, seen, normals = literal_rays.look(scene, camera, height, width)
    hits = cast(scene, camera, height, width)
    np.testing.assert_array_equal(hits.primitive, seen)
    np.testing.assert_allclose(hits.depth, depth, rtol=1e-10)
    np.testing.assert_allclose(describe(scene, camera, hits).facing, normals, atol=1e-6)
    shot = render(scene, camera, height, width)
    np.testing.assert_array_equal(shot.semseg, np.array(scene.classes)[np.array(scene.owners)[seen]])
    np.testing.assert_allclose(shot.depth, depth, rtol=1e-6)


def test_rays_along_the_axes_of_a_box_hit_it() -> None:
    wall = Primitive(Plane(), (0, 0, -5), (1, 1, 1), GREY, tilt=np.pi / 2)
    scene = replace(still_life(LAMP), primitives=(wall, Primitive(Box(), (0, 0, -2), (0.3, 0.3, 0.5), GREY)))
    camera = Camera(np.zeros(3), np.eye(3), 1.0)
    hits = cast(scene, camera, 3, 3)
    np.testing.assert_array_equal(hits.primitive, [[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    assert hits.depth[1, 1] == 1.5


def test_normals_are_those_of_the_surface_that_depth_describes() -> None:
    """Inside surfaces, normals of back-projected depth by central differences: within 0.5 degrees for 97 % of the
    pixels, the others on curved things; within 0.05 degrees in the median."""
    size = 240
    angles = []
    for index in range(4):
        scene, camera = room(index)
        shot = render(scene, camera, size, size)
        x, y = camera.grid(size, size)
        depth = shot.depth.astype(np.float64)
        points = np.stack([x[None] * depth, y[:, None] * depth, -depth], axis=2)
        right, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
        normal = np.cross(down, right)
        normal /= np.linalg.norm(normal, axis=2, keepdims=True)
        edge = shot.edges.astype(bool)
        calm = ~np.any(
            [edge[1 + i : size - 1 + i, 1 + j : size - 1 + j] for i in (-1, 0, 1) for j in (-1, 0, 1)], axis=0
        )
        cosine = (normal * shot.normals[1:-1, 1:-1]).sum(axis=2)[calm]
        angles.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    angle = np.concatenate(angles)
    assert (angle < 0.5).mean() > 0.97
    assert np.median(angle) < 0.05


def test_normals_face_the_camera() -> None:
    for index in range(4):
        scene, camera = room(index)
        shot = render(scene, camera, 60, 80)
        x, y = camera.grid(60, 80)
        rays = np.stack(
            [np.broadcast_to(x, (60, 80)), np.broadcast_to(y[:, None], (60, 80)), np.full((60, 80), -1.0)], axis=2
        )
        assert ((rays * shot.normals).sum(axis=2) < 1e-6).all()


@pytest.mark.parametrize("index", range(4))
def test_a_mirrored_camera_sees_the_mirrored_labels_exactly(index: int) -> None:
    scene, camera = room(index)
    expected = moved(render(scene, camera, 50, 67), lambda a: a[:, ::-1], np.diag([-1.0, 1.0, 1.0]))
    actual = render(scene, camera.mirrored(), 50, 67)
    for name in LABELS:
        np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name), err_msg=name)


@pytest.mark.parametrize("index", range(3))
def test_a_camera_rolled_by_a_right_angle_sees_the_turned_labels(index: int) -> None:
    scene, camera = room(index)
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    expected = moved(render(scene, camera, 64, 64), np.rot90, quarter)
    for name, share in agree(render(scene, camera.rolled(np.pi / 2), 64, 64), expected).items():
        assert share > 0.998, name  # rounding may move a border by a pixel


def test_roll_and_zoom_turn_and_stretch_where_points_are_seen() -> None:
    _, camera = room(0)
    points = np.random.default_rng(0).normal(size=(50, 3)) + camera.position - 4 * camera.rotation[2]

    def project(by: Camera) -> Array:
        x, y, back = by.rotation @ (points - by.position).T
        return np.asarray(np.stack([x, y]) / -back * by.focal)

    c, s = np.cos(0.4), np.sin(0.4)
    np.testing.assert_allclose(project(camera.rolled(0.4)), np.array([[c, -s], [s, c]]) @ project(camera), atol=1e-12)
    np.testing.assert_allclose(project(camera.zoomed(1.7)), 1.7 * project(camera), atol=1e-12)
    np.testing.assert_allclose(project(camera.mirrored()), [[-1], [1]] * project(camera), atol=1e-12)


def test_a_zoomed_camera_sees_the_middle_of_the_picture_at_the_same_depth() -> None:
    scene, camera = room(5)
    wide, near = render(scene, camera, 80, 120), render(scene, camera.zoomed(2), 40, 60)
    for name in ("semseg", "depth", "normals"):
        np.testing.assert_array_equal(getattr(near, name), getattr(wide, name)[20:60, 30:90], err_msg=name)


def test_edges_mark_the_later_surface_of_every_pair_of_unlike_neighbours_and_nothing_else() -> None:
    scene, camera = room(1)
    number = describe(scene, camera, cast(scene, camera, 40, 50)).number
    expected = np.zeros((40, 50), bool)
    for i, j in product(range(40), range(50)):
        around = [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
        expected[i, j] = any(0 <= k < 40 and 0 <= m < 50 and number[k, m] < number[i, j] for k, m in around)
    shot = render(scene, camera, 40, 50)
    np.testing.assert_array_equal(shot.edges, expected)
    change = shot.semseg[:, 1:] != shot.semseg[:, :-1]
    assert change.any()
    assert (shot.edges[:, 1:] | shot.edges[:, :-1])[change].all()


def test_salient_are_the_things_with_the_most_visible_area_near_the_middle() -> None:
    for index in range(6):
        scene, camera = room(index)
        shot, owner = render(scene, camera, 48, 64), np.array(scene.owners)[cast(scene, camera, 48, 64).primitive]
        score = dict.fromkeys(range(len(scene.classes)), 0.0)
        for i, j in product(range(48), range(64)):
            if CLASSES[scene.classes[owner[i, j]]] in THINGS:
                x, y, _ = camera.rotation @ literal_rays.ray(camera, 48, 64, i, j)
                score[owner[i, j]] += np.exp(-(x * x + y * y) / (2 * 0.35**2))
        chosen = [o for o, s in score.items() if s > 0 and s >= 0.6 * max(score.values())]
        np.testing.assert_array_equal(shot.saliency, np.isin(owner, chosen))


def test_shadows_fall_where_a_literal_ray_to_the_light_is_blocked() -> None:
    scene, camera = still_life(LAMP), view()
    hits = cast(scene, camera, 30, 40)
    number = describe(scene, camera, hits).number
    blocked = [literal_rays.hidden(scene, p, np.array(LAMP.position)) for p in hits.points.reshape(3, -1).T]
    dark = np.array(blocked, np.float32).reshape(30, 40)
    assert 0.05 < dark.mean() < 0.5
    np.testing.assert_allclose(reached(scene, hits.points, number)[0], 1 - smooth(dark, number), atol=1e-6)


def test_leaving_out_shadow_rays_that_cannot_be_blocked_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for index in range(5):
        scene, camera = room(index)
        hits = cast(scene, camera, 90, 120)
        seen.append((scene, hits.points, describe(scene, camera, hits).number))
    quick = [reached(*arguments) for arguments in seen]
    monkeypatch.setattr(
        shadow,
        "_shadowed",
        lambda scene, light, blocks: [(int(k), np.arange(blocks.shape[1])) for k in scene.casters],
    )
    for index, arguments in enumerate(seen):
        assert (quick[index] < 0.5).any()
        np.testing.assert_array_equal(quick[index], reached(*arguments))


@pytest.mark.parametrize("shape", [Box(), Ellipsoid(), Frustum(0.4), Frustum(1.7)])
def test_rays_from_within_a_solid_do_not_enter_it(shape: Box | Ellipsoid | Frustum) -> None:
    rays = np.random.default_rng(0).normal(size=(3, 200))
    _, hit = shape.enter(np.array([0.1, 0.2, -0.1])[:, None], rays)
    assert not hit.any()


def test_shadows_darken_and_lights_of_some_size_soften_them() -> None:
    camera = view()
    hard, soft = still_life(LAMP), still_life(replace(LAMP, radius=0.3))
    bare = replace(hard, primitives=tuple(replace(p, casts=False) for p in hard.primitives))
    shares = []
    for scene in (bare, hard, soft):
        hits = cast(scene, camera, 150, 200)
        shares.append(reached(scene, hits.points, describe(scene, camera, hits).number)[0])
    assert (shares[0] == 1).all()
    floor = render(hard, camera, 150, 200).semseg == 0
    dark, bright = floor & (shares[1] == 0), floor & (shares[1] == 1)
    picture = render(hard, camera, 150, 200).image.mean(axis=2)
    assert picture[dark].mean() < 0.8 * picture[bright].mean()
    partly = [((s > 0.02) & (s < 0.98) & floor).mean() for s in shares]
    assert partly[2] > 1.5 * partly[1]


def test_noise_has_its_own_seed_and_leaves_the_labels_alone() -> None:
    scene, camera = room(2)
    one, quiet, other = (
        render(s, camera, 30, 40)
        for s in (scene, replace(scene, noise=0.0), replace(scene, noise_seed=scene.noise_seed + 1))
    )
    assert agree(one, quiet) == agree(one, other) == dict.fromkeys(LABELS, 1.0)
    assert (one.image != other.image).mean() > 0.3
    difference = one.image.astype(float) - quiet.image.astype(float)
    assert difference.std() == pytest.approx(255 * scene.noise, rel=0.2)

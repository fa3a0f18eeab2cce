"""Sampled rooms make sense: where cameras and things stand, and what pictures hold."""

from __future__ import annotations

import numpy as np

from mt_datasets.rooms import CLASSES, THINGS, Camera, Scene, frame, sample_camera, sample_scene
from mt_datasets.rooms.raycast import cast
from mt_datasets.rooms.sample import FREE

from . import literal_rays


def room(index: int) -> tuple[Scene, Camera]:
    rng = np.random.default_rng((11, index))
    scene = sample_scene(rng)
    return scene, sample_camera(rng, scene)


def test_the_camera_stands_in_the_room_and_free_of_every_object() -> None:
    for index in range(150):
        scene, camera = room(index)
        x, y, z = camera.position
        assert abs(x) < scene.size[0] / 2
        assert 1 < y < scene.size[1] - 0.5
        assert abs(z) < scene.size[2] / 2
        for primitive in scene.primitives:
            if primitive.shape.bounded:
                local = literal_rays.turn(primitive).T @ (camera.position - np.array(primitive.centre))
                assert np.linalg.norm(np.maximum(np.abs(local) - primitive.half, 0)) >= FREE - 1e-9


def test_things_stand_on_the_floor_or_on_something() -> None:
    for index in range(60):
        scene, _ = room(index)
        corners, centre = scene.frames.corners, scene.frames.centre
        owners = np.array(scene.owners)
        for thing in np.flatnonzero(np.array(scene.classes) >= CLASSES.index(THINGS[0])):
            own = np.flatnonzero(owners == thing)
            low, high = corners[own][..., 1].min(), corners[own][..., 1].max()
            x, z = centre[own].mean(axis=0)[[0, 2]]
            under = [
                abs(corners[p][:, 1].max() - low) < 1e-9
                and (
                    np.abs((scene.frames.axes[p] @ [x - centre[p, 0], 0, z - centre[p, 2]])[[0, 2]])
                    < scene.frames.half[p][[0, 2]]
                ).all()
                for p in np.flatnonzero((owners != thing) & scene.bounded)
            ]
            hangs = CLASSES[scene.classes[thing]] == "lamp" and high >= scene.size[1] - 1e-9
            assert abs(low) < 1e-9 or any(under) or hangs, (index, CLASSES[scene.classes[thing]])


def test_things_do_not_reach_deep_into_one_another_or_through_the_walls() -> None:
    """No point of a grid in a thing's box-shaped parts lies more than 2 cm inside the box of another thing's part."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 5)] * 3), axis=-1).reshape(-1, 3)
    for index in range(30):
        scene, _ = room(index)
        owners, frames = np.array(scene.owners), scene.frames
        solid = [p for p, o in enumerate(owners) if CLASSES[scene.classes[o]] in THINGS]
        for p in solid:
            points = frames.centre[p] + (grid * frames.half[p]) @ frames.axes[p]
            walls = np.array(scene.size)[[0, 2]] / 2
            assert (np.abs(points[:, [0, 2]]) < walls + 0.02).all(), (index, CLASSES[scene.classes[owners[p]]])
            for q in solid:
                if owners[q] != owners[p]:
                    local = np.abs((points - frames.centre[q]) @ frames.axes[q].T)
                    pair = [CLASSES[scene.classes[owners[k]]] for k in (p, q)]
                    assert not (local < frames.half[q] - 0.02).all(axis=1).any(), (index, pair)


def test_no_two_surfaces_coincide_where_they_are_seen() -> None:
    """Else rounding would decide the labels."""
    for index in range(40):
        scene, camera = room(index)
        x, y = camera.grid(30, 40)
        rays = np.stack([np.tile(x, 30), np.repeat(y, 40), np.full(1200, -1.0)])
        to_unit = scene.frames.to_unit
        nearest = cast(scene, camera, 30, 40).depth.ravel()
        count = np.zeros(1200, int)
        with np.errstate(divide="ignore", invalid="ignore"):
            for k, primitive in enumerate(scene.primitives):
                origin = to_unit[k] @ (camera.position - scene.frames.centre[k])
                t, hit = primitive.shape.enter(origin[:, None], to_unit[k] @ camera.rotation.T @ rays)
                count += hit & (np.abs(t - nearest) < 1e-7)
        np.testing.assert_array_equal(count, 1, err_msg=f"room {index}")


def test_pictures_hold_several_classes_and_all_classes_occur() -> None:
    found = [np.unique(frame(2, index, 48, 64).semseg) for index in range(60)]
    assert np.mean([len(classes) for classes in found]) > 7
    assert min(len(classes) for classes in found) >= 3
    assert set(np.concatenate(found)) == set(range(len(CLASSES)))


def test_classes_are_not_told_by_colour_alone() -> None:
    """The nearest mean colour of a class, taken over the very same pictures, names less than half of the pixels."""
    shots = [frame(6, index, 32, 40) for index in range(40)]
    colours = np.concatenate([s.image.reshape(-1, 3) for s in shots]).astype(float)
    classes = np.concatenate([s.semseg.ravel() for s in shots])
    means = np.stack([colours[classes == c].mean(axis=0) for c in range(len(CLASSES))])
    guess = ((colours[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    assert (guess == classes).mean() < 0.5

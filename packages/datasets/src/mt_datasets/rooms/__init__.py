"""Procedural indoor scenes with exact labels: sampled, ray cast and shaded with numpy alone."""

from mt_datasets.rooms.camera import Camera
from mt_datasets.rooms.render import Frame, frame, render
from mt_datasets.rooms.sample import sample_camera, sample_scene
from mt_datasets.rooms.scene import CLASSES, THINGS, Light, Scene

__all__ = ["CLASSES", "THINGS", "Camera", "Frame", "Light", "Scene", "frame", "render", "sample_camera", "sample_scene"]

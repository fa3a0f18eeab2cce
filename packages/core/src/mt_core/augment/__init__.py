"""Joint augmentation: a picture and all its labels move together, each label as its type needs."""

from .kernels import register_label
from .transforms import (
    Augment,
    ColourJitter,
    RandomFlip,
    RandomRotation,
    RandomZoom,
    Resize,
    Transform,
    evaluation_transform,
    seeded,
    training_transform,
)

__all__ = [
    "Augment",
    "ColourJitter",
    "RandomFlip",
    "RandomRotation",
    "RandomZoom",
    "Resize",
    "Transform",
    "evaluation_transform",
    "register_label",
    "seeded",
    "training_transform",
]

"""Cityscapes (Cordts et al., CVPR 2016), street scenes, as published and in the form of MTAN (Liu et al., CVPR 2019).

Facts that the files of MTAN do not carry, from its authors and the code that reads it:
    The 7 classes are the categories of Cityscapes without void, the 19 its `trainId`s, both in the order of
    `labels.py` in mcordts/cityscapesScripts; for the 7 that order is assumed. -1 is not annotated (lorenmt/mtan,
    issue 41).
    Depth is inverse depth: the official disparity, unchanged (issues 15 and 25), 0 where it is missing. The greatest
    values seen, 32257 in the official 16-bit PNGs and 0.4922 in these files (issue 25), show that it was divided by
    65535, as readers of PNG do: so v stands for a disparity of (65535 v - 1) / 256 pixels of the 2048 x 1024 picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from mt_core.dataset import Dataset, Samples
from mt_core.errors import ConfigError
from mt_core.task import Task
from mt_core.tasks import Depth, Segmentation

from . import sources as published
from .cityscapes_official import is_official, official_layout, open_official
from .files import read_depth, read_labels
from .folders import another_root, contents, open_root
from .inverse_depth import InverseDepth
from .layout import Annotation, Layout
from .mtan import describe_mtan, is_mtan, mtan_layout, open_mtan

_NAMES = """road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person,
rider, car, truck, bus, train, motorcycle, bicycle"""
CLASSES = {
    7: ("flat", "construction", "object", "nature", "sky", "human", "vehicle"),
    19: tuple(_NAMES.replace("\n", " ").split(", ")),
}


class DepthForm(Enum):
    """What the task `depth` predicts: metres, or their inverse as MTAN's copies hold it (disparity / 65535)."""

    metres = "metres"
    inverse = "inverse"


def _layout(classes: int) -> Layout:
    note = f" (read as {classes} classes; dataset.classes can be {' or '.join(map(str, CLASSES))})"
    labels = (f"label_{classes}/*.npy", "label/*.npy")
    return mtan_layout(
        "The files are those of cityscapes.zip or cityscapes2.zip, which the authors of MTAN (Liu et al., 2019) "
        "published.",
        {
            "semseg": Annotation((labels,), read_labels, note),
            "depth": Annotation((("depth/*.npy",),), read_depth, " (inverse depth)"),
        },
    )


@dataclass(kw_only=True)
class Cityscapes(Dataset):
    """Street scenes with semantic classes and depth.

    Pictures are trained at the size of the smaller of MTAN's copies, which LibMTL and the papers after it use; for SAM,
    image_size=[512,1024] has the same shape. Training mirrors, and does not zoom: MTAN and LibMTL do not.

    Attributes:
        root: a folder with `leftImg8bit` is read in the official layout, `KIND/{train,val}/CITY/*`, with
            `*_leftImg8bit.png`, `gtFine/**/*_gtFine_labelIds.png`, `disparity/**/*_disparity.png` and, for metres,
            `camera/**/*_camera.json`. Else one with `train` or `val` in the layout MTAN:
            `{train,val}/{image,label_7,label_19,depth}/*.npy` of 128 x 256 (or 256 x 512), numbered from 0: image
            (H, W, 3) floats in [0, 1] or uint8, label (H, W) (-1 not annotated), depth (H, W, 1) (inverse depth as
            disparity / 65535, 0 missing). Labels are read from the folder with the number of `classes`, or from
            `label` where there is none.
        classes: 7 or 19.
        depth: `inverse`, as the papers train it (disparity / 65535), or `metres`, which MTAN's copies cannot give.
    """

    root: str = ""
    classes: int = 7
    depth: DepthForm = DepthForm.inverse

    image_size = (128, 256)
    sources = (published.CITYSCAPES_OFFICIAL, published.CITYSCAPES_MTAN)

    def __post_init__(self) -> None:
        if self.classes not in CLASSES:
            raise ConfigError(f"dataset.classes={self.classes}: Cityscapes has labels of 7 or 19 classes; choose one")

    def tasks(self) -> Mapping[str, Task]:
        names = CLASSES[self.classes]
        depth = Depth("depth") if self.depth is DepthForm.metres else InverseDepth("depth")
        tasks: list[Task] = [Segmentation("semseg", len(names), names), depth]
        return {task.name: task for task in tasks}

    def split(self, name: str, tasks: Sequence[Task]) -> Samples:
        layout, metres = _layout(self.classes), self.depth is DepthForm.metres
        expected = f"{official_layout(self.classes, metres).describe()} Or in {describe_mtan(layout)}"
        folder = open_root(self.root, expected)
        if is_official(folder):
            return open_official(folder, name, tasks, self.classes, metres)
        if not is_mtan(folder):
            raise another_root(f"{folder} holds {contents(folder)}", expected)
        if metres and any(task.name == "depth" for task in tasks):
            raise ConfigError(
                f"dataset.depth=metres, but {folder} has MTAN's copies, of inverse depth without its cameras; set "
                f"dataset.depth=inverse, or dataset.root to a folder in "
                f"{official_layout(self.classes, metres).describe()}"
            )
        return open_mtan(layout, folder, name, tasks)

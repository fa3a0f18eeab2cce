"""NYUv2 (Silberman et al., ECCV 2012) with the 13 classes of the multi-task papers, in either form that circulates.

Facts that the files of MTAN (Liu et al., CVPR 2019) do not carry, from its authors and the code that reads it:
    Classes and their order are those of the 13-class files of SceneNet (lorenmt/mtan, issue 11), which follow
    `class13Mapping.mat`, less 1; -1 is not annotated (issue 41).
    Normals are those of Eigen and Fergus, ICCV 2015 (README of lorenmt/mtan, issue 10), without their masks. Everybody
    who mirrors a picture negates the first component, which is thus the horizontal one. Nobody states the signs: they
    are assumed to be x right, y up, z towards the camera, as everywhere here. Losses and angles do not depend on that;
    the colours of panels do, and so would a rotation, which this data set's recipes do not use.
    (0, 0, 0) is not annotated. Resizing has shortened vectors at the borders: below half their length they count as
    not annotated, the others are brought to unit length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mt_core.dataset import Dataset, Samples
from mt_core.errors import ConfigError
from mt_core.task import Task
from mt_core.tasks import Depth, Normals, Segmentation

from . import nyud
from . import sources as published
from .files import read_depth, read_labels, read_normals
from .folders import Annotation, another_root, contents, open_root, open_split
from .mtan import describe_mtan, is_mtan, mtan_layout, open_mtan

# `classNames` of class13Mapping.mat, in its order: the classes of Couprie et al., ICLR 2013.
_NAMES = "bed, books, ceiling, chair, floor, furniture, objects, picture, sofa, table, tv, wall, window"
CLASSES = {13: tuple(_NAMES.split(", ")), 40: nyud.CLASSES}

MTAN = mtan_layout(
    "The files are those of nyuv2.zip, which the authors of MTAN (Liu et al., 2019) published.",
    {
        "semseg": Annotation((("label/*.npy",),), read_labels),
        "depth": Annotation((("depth/*.npy",),), read_depth),
        "normals": Annotation((("normal/*.npy",),), read_normals),
    },
)

_PNG = {name: nyud.LAYOUT.annotations[name] for name in MTAN.annotations}
_PNG_13 = {**_PNG, "semseg": replace(_PNG["semseg"], files=(("segmentation13/*.png",),))}
NYUD_MT = {
    40: replace(nyud.LAYOUT, annotations=_PNG),
    13: replace(nyud.LAYOUT, name="NYUD_MT with 13 classes", annotations=_PNG_13),
}


@dataclass(kw_only=True)
class NYUv2(Dataset):
    """Indoor frames with semantic classes, depth and surface normals.

    Frames are trained at the size of MTAN's files, at which MTAN, LibMTL and MTSAM take losses and metrics. MTSAM shows
    SAM a picture enlarged to 1024 at its longer side, which the papers do not say: image_size=[768,1024] comes closest.
    Training zooms by 1 to 1.5 (LibMTL and MTSAM draw from 1, 1.2 and 1.5) and mirrors.

    Attributes:
        root: a folder with `train` or `val` is read in the layout MTAN: `{train,val}/{image,label,depth,normal}/*.npy`
            of 288 x 384, numbered from 0: image (H, W, 3) floats in [0, 1] or uint8, label (H, W) (-1 not annotated),
            depth (H, W, 1) (metres, 0 missing), normal (H, W, 3). Else one with `gt_sets` or `images` is read in the
            layout NYUD_MT (see `mt_datasets.nyud.NYUD`), with the 13 classes in `segmentation13/*.png` (0 not
            annotated, else class + 1).
        classes: 13, or the 40 of NYUD_MT.
    """

    root: str = ""
    classes: int = 13

    image_size = (288, 384)
    zoom = (1.0, 1.5)
    sources = (published.NYUV2_MTAN, published.NYUD_MT)

    def __post_init__(self) -> None:
        if self.classes not in CLASSES:
            raise ConfigError(f"dataset.classes={self.classes}: NYUv2 has labels of 13 or 40 classes; choose one")

    def tasks(self) -> Mapping[str, Task]:
        names = CLASSES[self.classes]
        tasks: list[Task] = [Segmentation("semseg", len(names), names), Depth("depth"), Normals("normals")]
        return {task.name: task for task in tasks}

    def split(self, name: str, tasks: Sequence[Task]) -> Samples:
        frames = NYUD_MT[self.classes]
        expected = f"{describe_mtan(MTAN)} Or in {frames.describe()}"
        folder = open_root(self.root, expected)
        if is_mtan(folder):
            if self.classes != 13 and any(task.name == "semseg" for task in tasks):
                raise ConfigError(
                    f"dataset.classes={self.classes}, but {folder} has MTAN's labels, of 13 classes; "
                    f"set dataset.classes=13, or dataset.root to a folder in {frames.describe()}"
                )
            return open_mtan(MTAN, folder, name, tasks)
        if not any((folder / part).is_dir() for part in ("gt_sets", "images")):
            raise another_root(f"{folder} holds {contents(folder)}", expected)
        return open_split(frames, self.root, name, tasks)

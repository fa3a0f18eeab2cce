"""NYUv2 (Silberman et al., ECCV 2012) with 13 or 40 classes, in every form that circulates.

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
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mt_core.dataset import SPLITS, Dataset, Samples
from mt_core.errors import ConfigError
from mt_core.task import Task
from mt_core.tasks import Depth, Edges, Normals, Segmentation

from . import nyu_official, nyud
from . import sources as published
from .files import read_depth, read_labels, read_normals
from .folders import another_root, contents, open_root, open_split
from .label_edges import edges_from_classes
from .layout import Annotation, Layout, expect_choice
from .mtan import describe_mtan, is_mtan, mtan_layout, open_mtan
from .nyu_classes import CLASSES, forty_to_13, through
from .pinhole import normals_from_depth

COMPUTED = (
    "normals are not given: they were computed from depth and the camera of NYUv2, as planes fitted to inverse depth"
)
DERIVED = "edges are not given: they were derived as the borders of the annotated classes ({} classes)"


def _computed_normals(path: Path) -> NDArray[np.float32] | None:
    normals = normals_from_depth(read_depth(path)[0], nyu_official.CAMERA)
    return normals if normals.any() else None


def _edges_of_npy(path: Path) -> NDArray[np.float32]:
    return edges_from_classes(read_labels(path))


def _edges_of_png(path: Path) -> NDArray[np.float32]:
    return edges_from_classes(nyud.read_semseg(path))


@dataclass(frozen=True)
class _Thirteen:
    """Reads a PNG of 40 classes as 13; the table is that of the data set's folder."""

    folder: Path

    def __call__(self, path: Path) -> NDArray[np.int64]:
        return through(nyud.read_semseg(path), forty_to_13(self.folder))


MTAN = mtan_layout(
    "The files are those of nyuv2.zip, which the authors of MTAN (Liu et al., 2019) published.",
    {
        "semseg": Annotation((("label/*.npy",),), read_labels),
        "depth": Annotation((("depth/*.npy",),), read_depth),
        "normals": Annotation((("normal/*.npy",),), read_normals),
        "edges": Annotation((("edge/*.npy",),), nyud.read_edges),
    },
)
_SEMSEG_13 = replace(nyud.LAYOUT.annotations["semseg"], files=(("segmentation13/*.png",),))


def _without_what_is_absent(layout: Layout, folders: Sequence[Path], made: Mapping[str, Annotation]) -> Layout:
    """The layout with the annotations `made` from others, by task, where none of `folders` has one of its own."""
    annotations = {
        task: made[task] if task in made and not _is_given(layout, folders, task) else annotation
        for task, annotation in layout.annotations.items()
    }
    return replace(layout, annotations=annotations)


def _is_given(layout: Layout, folders: Sequence[Path], task: str) -> bool:
    patterns = [pattern for group in layout.annotations[task].files for pattern in group]
    return any((folder / pattern).parent.is_dir() for folder in folders for pattern in patterns)


def _splits(folder: Path) -> list[Path]:
    return [folder / split for split in SPLITS]


_NORMALS = Annotation((("depth/*.npy",),), _computed_normals, " (normals computed from it)")
_MADE_MTAN = {
    "normals": _NORMALS,
    "edges": Annotation((("label/*.npy",),), _edges_of_npy, " (edges derived from it)"),
}
_MADE_NYUD = {
    "normals": _NORMALS,
    "edges": Annotation((("segmentation/*.png",),), _edges_of_png, " (edges derived from it)"),
}


@dataclass(kw_only=True)
class NYUv2(Dataset):
    """Indoor frames with semantic classes, depth, surface normals and edges.

    Frames are trained at the size of MTAN's files, at which MTAN, LibMTL and MTSAM take losses and metrics. MTSAM shows
    SAM a picture enlarged to 1024 at its longer side, which the papers do not say: image_size=[768,1024] comes closest.
    Training zooms by 1 to 1.5 (LibMTL and MTSAM draw from 1, 1.2 and 1.5) and mirrors. The papers on it train no edges.

    Attributes:
        root: a folder with `nyu_depth_v2_labeled.mat` is read in the official layout, with `splits.mat`. Else one with
            `train` or `val` in the layout MTAN: `{train,val}/{image,label,depth,normal}/*.npy` of 288 x 384, numbered
            from 0: image (H, W, 3) floats in [0, 1] or uint8, label (H, W) (-1 not annotated), depth (H, W, 1)
            (metres, 0 missing), normal (H, W, 3). Else one with `gt_sets` or `images` in the layout NYUD_MT (see
            `mt_datasets.nyud.NYUD`), where `segmentation13/*.png` (0 not annotated, else class + 1) may hold the 13
            classes. Normals without files of their own are computed from depth, edges derived from classes.
        classes: 13 or 40; the files of MTAN have 13.
        raw_depth: in the official layout, depth as the sensor measured it (`rawDepths`, 0 where it is missing) instead
            of in-filled (`depths`).
    """

    root: str = ""
    classes: int = 13
    raw_depth: bool = False

    image_size = (288, 384)
    zoom = (1.0, 1.5)
    sources = (published.NYUV2_OFFICIAL, published.NYUV2_MTAN, published.NYUD_MT)
    usual_tasks: ClassVar[tuple[str, ...]] = ("semseg", "depth", "normals")

    def __post_init__(self) -> None:
        if self.classes not in CLASSES:
            raise ConfigError(f"dataset.classes={self.classes}: NYUv2 has labels of 13 or 40 classes; choose one")

    def tasks(self) -> Mapping[str, Task]:
        names = CLASSES[self.classes]
        tasks: list[Task] = [
            Segmentation("semseg", len(names), names),
            Depth("depth"),
            Normals("normals"),
            Edges("edges"),
        ]
        return {task.name: task for task in tasks}

    def split(self, name: str, tasks: Sequence[Task]) -> Samples:
        expect_choice(MTAN, name, tasks)
        folder = self._folder()
        if nyu_official.is_official(folder):
            return nyu_official.open_frames(folder, name, tasks, self.classes, self.raw_depth)
        if self.raw_depth:
            raise ConfigError(
                f"dataset.raw_depth=true, but {folder} has no {nyu_official.FILE}, which alone holds raw depth; leave "
                f"the option away, or set dataset.root to a folder with that file"
            )
        if not is_mtan(folder):
            return open_split(self._nyud_mt(folder), self.root, name, tasks)
        if self.classes != 13 and any(task.name == "semseg" for task in tasks):
            raise ConfigError(
                f"dataset.classes={self.classes}, but {folder} has MTAN's labels, of 13 classes; "
                f"set dataset.classes=13, or dataset.root to a folder in another layout"
            )
        return open_mtan(_without_what_is_absent(MTAN, _splits(folder), _MADE_MTAN), folder, name, tasks)

    def notes(self, tasks: Sequence[Task]) -> list[str]:
        folder = self._folder()
        if nyu_official.is_official(folder):
            given, labelled = {task.name for task in tasks if nyu_official.is_given(folder, task.name)}, 40
        elif is_mtan(folder):
            given, labelled = {task.name for task in tasks if _is_given(MTAN, _splits(folder), task.name)}, 13
        else:
            given, labelled = {task.name for task in tasks if _is_given(nyud.LAYOUT, [folder], task.name)}, 40
        said = {"normals": COMPUTED, "edges": DERIVED.format(labelled)}
        return [said[task.name] for task in tasks if task.name in said and task.name not in given]

    def _folder(self) -> Path:
        """Raises DataError if it is in none of the layouts."""
        expected = f"{nyu_official.EXPECTED}. Or in {describe_mtan(MTAN)} Or in {nyud.LAYOUT.describe()}"
        folder = open_root(self.root, expected)
        known = nyu_official.is_official(folder) or is_mtan(folder)
        if not known and not any((folder / part).is_dir() for part in ("gt_sets", "images")):
            raise another_root(f"{folder} holds {contents(folder)}", expected)
        return folder

    def _nyud_mt(self, folder: Path) -> Layout:
        layout = _without_what_is_absent(nyud.LAYOUT, [folder], _MADE_NYUD)
        if self.classes == 40:
            return layout
        made = replace(nyud.LAYOUT.annotations["semseg"], read=_Thirteen(folder))
        thirteen = _SEMSEG_13 if (folder / "segmentation13").is_dir() else made
        return replace(layout, annotations={**layout.annotations, "semseg": thirteen})

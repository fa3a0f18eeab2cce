"""NYUD: indoor frames of NYUv2 (Silberman et al., ECCV 2012), in the layout NYUD_MT of Maninis et al., CVPR 2019."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mt_core.dataset import Dataset, Samples
from mt_core.errors import DataError
from mt_core.labels import IGNORE
from mt_core.task import Task
from mt_core.tasks import Depth, Edges, Normals, Segmentation

from . import nyu_classes
from . import sources as published
from .files import read_classes, read_depth, read_normals, read_plane
from .folders import open_split
from .layout import Annotation, Layout

CLASSES = nyu_classes.CLASSES[40]  # in the files they count from 1


def read_semseg(path: Path) -> NDArray[np.int64]:
    """Classes (H, W) int64 from 0, 255 where not annotated, from a PNG of classes from 1. Raises DataError."""
    classes = read_classes(path)
    return np.where(classes == 0, IGNORE, classes - 1)


def read_edges(path: Path) -> NDArray[np.float32]:
    """(1, H, W) of 0 and 1 from an .npy of edges, or of their probabilities. Raises DataError."""
    edges = read_plane(path)
    if not bool(((edges >= 0) & (edges <= 1)).all()):
        raise DataError(f"{path}: values outside 0..1; expected an edge map of 0 and 1, or of probabilities")
    return (edges >= 0.5).astype(np.float32)[None]  # (1, H, W)


LAYOUT = Layout(
    name="NYUD_MT",
    origin="The files are those of NYUD_MT.tgz, which the authors of ASTMT (Maninis et al., 2019) published.",
    lists="gt_sets/*.txt",
    pictures="images/*.jpg",
    annotations={
        "semseg": Annotation((("segmentation/*.png",),), read_semseg, " (counting from 0, the file from 1)"),
        "depth": Annotation((("depth/*.npy",),), read_depth),
        "normals": Annotation((("normals/*.npy", "normals/*.png"),), read_normals),
        "edges": Annotation((("edge/*.npy",),), read_edges),
    },
)


@dataclass(kw_only=True)
class NYUD(Dataset):
    """Indoor frames with semantic classes, depth, surface normals and edges.

    Attributes:
        root: a folder in the layout NYUD_MT: `images/*.jpg`, `segmentation/*.png` (0 not annotated, else class + 1),
            `depth/*.npy` (metres, 0 missing), `normals/*.npy` or 8-bit `normals/*.png` (n = p / 127.5 - 1; x right,
            y up, z towards the camera; shorter than half: not annotated), `edge/*.npy`, `gt_sets/{train,val}.txt`.
    """

    root: str = ""

    image_size = (448, 448)
    zoom = (1.0, 1.5)
    sources = (published.NYUD_MT,)

    def tasks(self) -> Mapping[str, Task]:
        tasks: list[Task] = [
            Segmentation("semseg", len(CLASSES), CLASSES),
            Depth("depth"),
            Normals("normals"),
            Edges("edges"),
        ]
        return {task.name: task for task in tasks}

    def split(self, name: str, tasks: Sequence[Task]) -> Samples:
        return open_split(LAYOUT, self.root, name, tasks)

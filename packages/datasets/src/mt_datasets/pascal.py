"""PASCAL-Context (Mottaghi et al., CVPR 2014) with more tasks, in the layout PASCAL_MT of Maninis et al., CVPR 2019."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mt_core.dataset import SPLITS, Dataset, Samples
from mt_core.errors import DataError
from mt_core.task import Task
from mt_core.tasks import Edges, HumanParts, Normals, Saliency, Segmentation

from . import sources as published
from .context import NYU_CLASSES
from .files import read_classes, read_grey, read_mat, read_normals, reading, scan_ids
from .folders import lacking, open_split
from .layout import Annotation, Layout, Promise, fill

_NAMES = """background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse,
motorbike, person, pottedplant, sheep, sofa, train, tvmonitor"""
CLASSES = tuple(_NAMES.replace("\n", " ").split(", "))  # of PASCAL VOC

PARTS = {
    "head": ("head", "hair", "lear", "rear", "leye", "reye", "lebrow", "rebrow", "nose", "mouth"),
    "torso": ("torso", "neck"),
    "upper arms": ("luarm", "ruarm"),
    "lower arms": ("llarm", "rlarm", "lhand", "rhand"),
    "upper legs": ("luleg", "ruleg"),
    "lower legs": ("llleg", "rlleg", "lfoot", "rfoot"),
}  # of PASCAL-Part (Chen et al., CVPR 2014), in six groups

_PERSON = 15
_PARTS = "ImageSets/Parts/{}.txt"
_PART_CLASS = {name: index for index, names in enumerate(PARTS.values(), start=1) for name in names}


def _read_saliency(path: Path) -> NDArray[np.float32]:
    return (read_grey(path) > 127).astype(np.float32)[None]  # (1, H, W)


def _read_human_parts(path: Path) -> NDArray[np.int64] | None:
    """Later parts are painted over earlier ones; a picture without any part of a person has no annotation."""
    classes: NDArray[np.int64] | None = None
    for name, mask in _person_parts(path):
        if name not in _PART_CLASS:
            raise DataError(f"{path}: a person has a part {name!r}; expected one of {', '.join(_PART_CLASS)}")
        if classes is None:
            classes = np.zeros(mask.shape, np.int64)
        if mask.shape != classes.shape:
            raise DataError(f"{path}: masks of {classes.shape} and {mask.shape}; expected one size in one picture")
        classes[mask] = _PART_CLASS[name]
    return classes if classes is not None and classes.any() else None


def _person_parts(path: Path) -> list[tuple[str, NDArray[np.bool]]]:
    """The parts of all people in PASCAL-Part's struct: objects, of which each has a class and parts with a mask."""
    annotation = read_mat(path, "anno")
    with reading(path, "PASCAL-Part's struct `anno`"):
        people = [item for item in annotation["objects"].item().flat if item["class_ind"].item() == _PERSON]
        return [(part["part_name"].item(), part["mask"].astype(bool)) for item in people for part in item["parts"].flat]


def _read_normals(path: Path, context: Path) -> NDArray[np.float32] | None:
    """The normals where the scene shows what the network that drew them knew; None where it nowhere does."""
    normals, label_map = read_normals(path), _label_map(context)
    if label_map.shape != normals.shape[1:]:
        raise DataError(f"{context}: LabelMap of {label_map.shape}, but {path} has {normals.shape[1:]}; restore them")
    known: NDArray[np.float32] = normals * np.isin(label_map, list(NYU_CLASSES))
    return known if known.any() or not normals.any() else None


def _read_edges(path: Path) -> NDArray[np.float32]:
    """Where the Laplacian of the label map is not 0, thinned to one pixel."""
    from scipy.ndimage import laplace  # slow to import, and only edges need them
    from skimage.morphology import thin

    edges = thin(laplace(_label_map(path), mode="mirror") != 0)  # type: ignore[no-untyped-call]
    return np.asarray(edges, np.float32)[None]  # (1, H, W)


def _label_map(path: Path) -> NDArray[np.int64]:
    labels = read_mat(path, "LabelMap")
    if labels.ndim != 2 or not labels.size or labels.dtype.kind not in "uif" or not np.isin(labels, range(460)).all():
        raise DataError(f"{path}: LabelMap is {labels.dtype} of shape {labels.shape}; expected (H, W) of 0..459")
    return labels.astype(np.int64)


_LABEL_MAP = ("pascal-context/trainval/*.mat",)

LAYOUT = Layout(
    name="PASCAL_MT",
    origin="The files are those of PASCAL_MT.tgz, which the authors of ASTMT (Maninis et al., 2019) published.",
    lists="ImageSets/Context/*.txt",
    pictures="JPEGImages/*.jpg",
    annotations={
        "semseg": Annotation((("semseg/VOC12/*.png", "semseg/pascal-context/*.png"),), read_classes),
        "human_parts": Annotation((("human_parts/*.mat",),), _read_human_parts, partial=True),
        "saliency": Annotation((("sal_distill/*.png",),), _read_saliency, partial=True),
        "normals": Annotation((("normals_distill/*.png",), _LABEL_MAP), _read_normals),
        "edges": Annotation((_LABEL_MAP,), _read_edges),
    },
)


@dataclass(kw_only=True)
class PASCAL(Dataset):
    """Everyday photographs with semantic classes, parts of people, saliency, surface normals and edges.

    Pictures without people have no `human_parts`; pictures that show nothing NYUv2 knows have no `normals`. A picture
    without a file of `human_parts` or `sal_distill` has no such annotation, and trains the other tasks: unless
    `ImageSets/Parts` says that it shows people.

    Attributes:
        root: a folder in the layout PASCAL_MT: `JPEGImages/*.jpg`, `semseg/{VOC12,pascal-context}/*.png` (255 not
            annotated), `human_parts/*.mat` (PASCAL-Part), `sal_distill/*.png` (salient above 127),
            `normals_distill/*.png` (n = 2 p / 255 - 1), `pascal-context/trainval/*.mat` (LabelMap, for edges and
            normals), `ImageSets/Context/{train,val}.txt`, and, where there are any, `ImageSets/Parts/{train,val}.txt`
            (of every picture the classes of its objects, as JSON, or just the names of those with parts).
    """

    root: str = ""

    image_size = (448, 448)
    zoom = (0.75, 1.25)
    rotation = 20.0
    sources = (published.PASCAL_MT,)

    def tasks(self) -> Mapping[str, Task]:
        tasks: list[Task] = [
            Segmentation("semseg", len(CLASSES), CLASSES),
            HumanParts("human_parts", classes=("background", *PARTS)),
            Saliency("saliency"),
            Normals("normals"),
            Edges("edges"),
        ]
        return {task.name: task for task in tasks}

    def split(self, name: str, tasks: Sequence[Task]) -> Samples:
        promises = {task.name: _promised(self.root, name) for task in tasks if task.name == "human_parts"}
        return open_split(LAYOUT, self.root, name, tasks, promises)

    def notes(self, tasks: Sequence[Task]) -> list[str]:
        folder = Path(self.root).expanduser()
        lists = {split: folder / fill(LAYOUT.lists, split) for split in SPLITS}
        ids = {split: scan_ids(path)[0] for split, path in lists.items() if path.is_file()}
        return [sentence for split, names in ids.items() for sentence in lacking(LAYOUT, folder, names, tasks, split)]


def _promised(root: str, split: str) -> Promise:
    """The pictures with people: where there is no list of them, none."""
    listed = _PARTS.format(split)
    path = Path(root).expanduser() / listed
    if not path.exists():
        return Promise(listed, frozenset())
    try:
        names, wrong = _pictures_with_people(path)
    except DataError as error:
        names, wrong = [], [str(error)]
    return Promise(listed, frozenset(names), tuple(wrong))


def _pictures_with_people(path: Path) -> tuple[list[str], list[str]]:
    """What ImageSets/Parts lists: JSON of the classes of every picture's objects, as ASTMT writes it, or names.

    And what is wrong with the names. Raises DataError.
    """
    with reading(path, "the pictures with parts: JSON of a list of classes for each, or one name a line"):
        text = path.read_text(encoding="utf-8-sig")
        if not text.lstrip().startswith("{"):
            return scan_ids(path)
        return [name for name, objects in json.loads(text).items() if _PERSON in objects], []

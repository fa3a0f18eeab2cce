"""What `mtrun data` and `mtrun compare` can be told, and the defaults. Nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Any, ClassVar

from mt_core.errors import ConfigError

from .config import CHOSEN, Config


class Weights(StrEnum):
    """Whose metrics are compared: of the evaluation with the lowest loss, or of the last one."""

    best = auto()
    final = auto()


@dataclass
class CompareOptions:
    """A comparison of runs. Each option is given as NAME=VALUE or --NAME VALUE; lists are separated by commas.

    Attributes:
        paper: tables of papers to show beside the runs, as mtlora:table1; marked as published, not measured.
        baseline: what gains are relative to: folders of runs, single-task ones together, or one table of a paper.
        output: the folder to write report.html and comparison.md, .csv and .json into; null: comparison, here.
        pictures: validation pictures that every model predicts, beside each other; 0: none.
        weights: best (the evaluation with the lowest weighted loss) or final: whose metrics and predictions.
        title: of the report.
        dry_run: print the tables and write nothing.
    """

    paper: list[str] = field(default_factory=list)
    baseline: list[str] = field(default_factory=list)
    output: str | None = None
    pictures: int = 3
    weights: Weights = Weights.best
    title: str = "Comparison"
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.pictures < 0:
            raise ConfigError(f"pictures={self.pictures}: expected a whole number from 0 on")


@dataclass
class DatasetConfig(Config):
    """What all actions on a data set take.

    Attributes:
        dataset: the data set; its options are dataset.X. Its name may stand alone: mtrun data verify nyud.
    """

    dataset: Any = CHOSEN

    groups: ClassVar[Mapping[str, str | None]] = {"dataset": None}


@dataclass
class VerifyConfig(DatasetConfig):
    """A look at every file of a data set.

    Attributes:
        tasks: whose annotations are read; null: all that the data set has.
        splits: which splits.
        pictures: look at the first so many of each split only; null: at all.
        workers: processes that read; null: one per processor.
        output: the folder for report.json and report.txt; null: runs/verify-DATASET-TIME.
        dry_run: write nothing.
    """

    tasks: list[str] | None = None
    splits: list[str] = field(default_factory=lambda: ["train", "val"])
    pictures: int | None = None
    workers: int | None = None
    output: str | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        if not self.splits or len(set(self.splits)) < len(self.splits):
            raise ConfigError(f"splits={self.splits}: expected names of splits, each once, as [train,val]")
        for name, lowest in (("pictures", 1), ("workers", 0)):
            if (value := getattr(self, name)) is not None and value < lowest:
                raise ConfigError(f"{name}={value}: expected at least {lowest}")


@dataclass
class PrepareConfig(DatasetConfig):
    """A data set unpacked from archives that are here already. Nothing is ever downloaded.

    Attributes:
        archives: the files to unpack: .tar, .tgz, .tar.gz, .tar.bz2, .tar.xz, .zip, or .mat; none: tell where to get
            them. They are unpacked beside dataset.root, which appears when all is there.
        max_ratio: an archive that becomes more than so many times larger is refused as a decompression bomb.
    """

    archives: list[str] = field(default_factory=list)
    max_ratio: float = 200.0


@dataclass
class ShowConfig(DatasetConfig):
    """Pictures of a data set, drawn with their annotations.

    Attributes:
        tasks: whose annotations are drawn; null: all that the data set has.
        split: train or val.
        count: how many pictures.
        seed: which pictures, and how they are augmented; null: the first ones.
        augment: draw each of them once more as training would vary it.
        image_size: [height, width] after augmentation; null: as is usual for the data set.
        output: the PNG to write; null: DATASET-SPLIT.png in the current folder.
    """

    tasks: list[str] | None = None
    split: str = "train"
    count: int = 4
    seed: int | None = None
    augment: bool = False
    image_size: tuple[int, int] | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        if self.count < 1 or self.count > 64:
            raise ConfigError(f"count={self.count}: expected 1 to 64 pictures")
        if self.seed is not None and self.seed < 0:
            raise ConfigError(f"seed={self.seed}: expected a whole number from 0 on, or null")

"""What each verb can be told, and the defaults. Nothing heavy is imported: `--help` reads these classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Any, ClassVar, TypeVar, get_type_hints

from mt_core.errors import ConfigError
from mt_core.options import from_dict

from .recipe import AugmentOptions, LaunchOptions, LossOptions, PlanOptions, RunningOptions, TrainerOptions

T = TypeVar("T")

CHOSEN = "???"  # the value of a config group before Hydra has filled it


class DepthFormat(StrEnum):
    """How predicted depth is written: 16-bit PNG in millimetres, or float32 npy in metres."""

    png = auto()
    npy = auto()


class NormalsFormat(StrEnum):
    """How predicted normals are written: 16-bit PNG, n = p / 32767.5 - 1, or float32 npy (H, W, 3)."""

    png = auto()
    npy = auto()


class ExportFormat(StrEnum):
    """What a trained model is exported as."""

    artifact = auto()
    merged = auto()
    torch_export = auto()
    onnx = auto()


@dataclass
class Config:
    """What Hydra composes for a verb.

    Class attributes:
        groups: the config groups that plugins fill, each a field too, with their defaults.
        files: groups of YAML files, which are none by default.
    """

    groups: ClassVar[Mapping[str, str | None]] = {}
    files: ClassVar[tuple[str, ...]] = ()


@dataclass
class TrainConfig(Config):
    """A training run.

    Attributes:
        adapter: what is trained in the backbone; its options are adapter.X.
        backbone: the frozen encoder; its options are backbone.X.
        decoder: the head of each task; auto takes the backbone's own (SAM's neck has one), else that of the adapter's
            paper, else hrnet.
        dataset: the pictures; its options are dataset.X.
        engine: what computes the steps: torch for one process, deepspeed for several.
        balancer: weighs the tasks' losses or gradients against each other, beyond loss.weights.
        tasks: which tasks, NAME or NAME:CHANNELS, in order; null: all that the data set has.
        image_size: [height, width] of the network's input; null: as is usual for the data set.
        protocol: how results are measured: astmt, mtan or mtsam.
        seed: of everything random.
        run_dir: where the run is written; must not hold one yet; null: runs/ADAPTER-BACKBONE-DATASET-TIME.
        resume: the folder of a run whose configuration stands in for the defaults; train goes on with it, in that
            folder, from its newest complete state.
        dry_run: build everything, take one step, evaluate one batch and write nothing.
    """

    adapter: Any = CHOSEN
    backbone: Any = CHOSEN
    decoder: Any = CHOSEN
    dataset: Any = CHOSEN
    engine: Any = CHOSEN
    balancer: Any = CHOSEN
    tasks: list[str] | None = None
    image_size: tuple[int, int] | None = None
    protocol: str = "astmt"
    seed: int = 0
    run_dir: str | None = None
    resume: str | None = None
    dry_run: bool = False
    loss: LossOptions = field(default_factory=LossOptions)
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    plan: PlanOptions = field(default_factory=PlanOptions)
    launch: LaunchOptions = field(default_factory=LaunchOptions)

    groups: ClassVar[Mapping[str, str | None]] = {
        "adapter": "mtlora",
        "backbone": "swin_tiny",
        "decoder": "auto",
        "dataset": "rooms",
        "engine": "torch",
        "balancer": "fixed",
    }
    files: ClassVar[tuple[str, ...]] = ("experiment",)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed={self.seed}: expected a whole number from 0 on")


@dataclass
class PlanConfig(TrainConfig):
    """A plan for a training run; the same options as of `train`.

    Attributes:
        show: print the plan and write its picture; with plan.file, of that plan, and look at no data. --show sets it.
        output: with plan.file, the picture to write; null: plan.png in the current folder.
        run_dir: where the plan is written; must not hold a run yet; null: runs/plan-ADAPTER-BACKBONE-DATASET-TIME.
        dry_run: make the plan, or show it, and write nothing.
    """

    show: bool = False
    output: str | None = None


@dataclass
class EvalConfig(Config):
    """An evaluation of a trained model.

    Attributes:
        checkpoint: a run's folder, or an artefact.
        base_checkpoint: the file of the backbone's pretrained weights, where it is no longer where it was.
        dataset: the pictures; those of the run unless given. Its options are dataset.X.
        tasks: which of the model's tasks; null: all.
        protocol: how results are measured: astmt, mtan or mtsam.
        slow: measure also what is not usual: the odsF of edges, seconds per picture, and Boundary IoU.
        dry_run: write nothing.
    """

    checkpoint: str = ""
    base_checkpoint: str = ""
    dataset: Any = CHOSEN
    tasks: list[str] | None = None
    protocol: str = "astmt"
    slow: bool = False
    dry_run: bool = False
    trainer: RunningOptions = field(default_factory=RunningOptions)
    launch: LaunchOptions = field(default_factory=LaunchOptions)

    groups: ClassVar[Mapping[str, str | None]] = {"dataset": None}


@dataclass
class DepthOptions:
    """How predicted depth is written.

    Attributes:
        format: png (16 bit, millimetres; 0 where nothing is predicted, 65535 and beyond clipped) or npy (metres).
    """

    format: DepthFormat = DepthFormat.png


@dataclass
class NormalsOptions:
    """How predicted normals are written.

    Attributes:
        format: png (16 bit, n = p / 32767.5 - 1; x right, y up, z towards the camera) or npy (H, W, 3).
    """

    format: NormalsFormat = NormalsFormat.png


@dataclass
class PredictConfig(Config):
    """Predictions for pictures.

    Attributes:
        input: a picture, or a folder of them.
        checkpoint: a run's folder, or an artefact.
        base_checkpoint: the file of the backbone's pretrained weights, where it is no longer where it was.
        output: the folder to write; null: predictions in the run's folder, or in the current one.
        tasks: which of the model's tasks; null: all.
        dry_run: predict and write nothing.
    """

    input: str = ""
    checkpoint: str = ""
    base_checkpoint: str = ""
    output: str | None = None
    tasks: list[str] | None = None
    dry_run: bool = False
    depth: DepthOptions = field(default_factory=DepthOptions)
    normals: NormalsOptions = field(default_factory=NormalsOptions)
    trainer: RunningOptions = field(default_factory=RunningOptions)


@dataclass
class ExportConfig(Config):
    """A trained model in another form.

    Attributes:
        format: artifact (a copy of the artefact, checked), merged (for each task one plain encoder in its library's
            layout, and its decoder), torch_export (the whole model as a .pt2 file) or onnx.
        checkpoint: a run's folder, or an artefact.
        base_checkpoint: the file of the backbone's pretrained weights, where it is no longer where it was.
        output: the folder to write, a new one; null: export-FORMAT in the run's folder, or in the current one.
        tasks: which of the model's tasks; null: all.
        layout: the layout of merged encoders: original (the library the backbone comes from), or another that the
            backbone knows, as segment_anything for SAM.
        verify: read back what was written and compare its numbers with the model's.
    """

    format: ExportFormat = ExportFormat.artifact
    checkpoint: str = ""
    base_checkpoint: str = ""
    output: str | None = None
    tasks: list[str] | None = None
    layout: str = "original"
    verify: bool = True


def typed(cls: type[T], values: Mapping[str, Any]) -> T:
    """A config object from composed plain values; what a group chose stays a dictionary with its `name`.

    Raises:
        ConfigError: if a value cannot be.
    """
    hints = get_type_hints(cls)
    nested = {
        name: from_dict(hints[name], value, name)
        for name, value in values.items()
        if dataclasses.is_dataclass(hints.get(name))
    }
    return from_dict(cls, {**values, **nested}, "the configuration")

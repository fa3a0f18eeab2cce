"""A task: one kind of dense prediction, with its loss, its reading of the logits, its checks and its colours."""

from __future__ import annotations

import dataclasses
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from .errors import ConfigError, DataError
from .labels import Label

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Task(ABC):
    """One prediction per pixel. A subclass is a *kind* (segmentation, depth, ...), an instance a task of a data set.

    Attributes:
        name: what users call it (`semseg`); also the name of its decoder and of its private parameters.
        channels: channels of the logits, N_t.
        classes: names of the classes, where there are any.
        loss_name: which of the kind's `losses` trains it; empty for the first, which is the default.

    Class attributes:
        kind: the name of the kind, as plugins register it.
        label: the type of its annotation.
        losses: name -> function (logits (B, N, H, W), target) -> scalar mean over the annotated pixels;
            0 (with a gradient) where no pixel is. A batch may be dealt out to several processes, and what is no plain
            mean over it takes its sums with `mt_core.distributed.everywhere`.
        weight: its usual weight in the sum of losses (MTLoRA's, after Vandenhende et al.).
        measured_as: the kind whose metrics protocols take for it; empty for its own.
    """

    name: str
    channels: int
    classes: tuple[str, ...] = ()
    loss_name: str = ""

    kind: ClassVar[str]
    label: ClassVar[type[Label]]
    losses: ClassVar[Mapping[str, Loss]]
    weight: ClassVar[float] = 1.0
    measured_as: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ConfigError(f"task name {self.name!r}: expected a lower-case word (letters, digits and underscores)")
        if self.channels < 1:
            raise ConfigError(f"task {self.name}: {self.channels} channels; at least 1 is needed")
        if self.loss_name and self.loss_name not in self.losses:
            raise ConfigError(f"task {self.name}: no loss {self.loss_name!r}; {self.kind} has {', '.join(self.losses)}")
        if self.classes and len(self.classes) != self.class_count:
            raise ConfigError(
                f"task {self.name}: {len(self.classes)} class names for {self.class_count} classes; give one name each"
            )

    @property
    def class_count(self) -> int:
        """How many values a pixel of the label may take; by default one per channel."""
        return self.channels

    def with_channels(self, channels: int) -> Task:
        """The same task with another number of channels; class names are kept only where they still fit."""
        return dataclasses.replace(self, channels=channels, classes=self.classes if channels == self.channels else ())

    def with_loss(self, name: str) -> Task:
        """The same task, trained with another of its kind's losses."""
        return dataclasses.replace(self, loss_name=name)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean loss over the annotated pixels. logits (B, N, H, W), target as `label` -> ()"""
        return self.losses[self.loss_name or next(iter(self.losses))](logits, target)

    @abstractmethod
    def predict(self, logits: Tensor) -> Tensor:
        """What the logits (B, N, H, W) say, in the units of the label: classes (B, H, W), or (B, C, H, W)."""

    @abstractmethod
    def colours(self, values: Tensor) -> Tensor:
        """A picture of one label or prediction on the CPU: uint8 (3, H, W); void is black.

        values: (H, W) or (C, H, W), in the units of the label.
        """

    def check(self, label: Tensor, where: str) -> None:
        """Refuse an annotation that cannot be right, as read from disk.

        Raises:
            DataError: naming `where`, what was found and what was expected.
        """
        self.check_values(label, where)
        if not bool(self.label.valid(label).any()):
            raise DataError(
                f"{where}: no pixel is annotated (all void) for task {self.name}; "
                f"remove it from the split list or mend the file"
            )

    @abstractmethod
    def check_values(self, label: Tensor, where: str) -> None:
        """Refuse values out of range or not finite. Raises DataError."""

    def to_json(self) -> dict[str, Any]:
        """A description from which `mt_core.tasks.task_from_json` builds the task again."""
        return {"kind": self.kind, **dataclasses.asdict(self), "classes": list(self.classes)}

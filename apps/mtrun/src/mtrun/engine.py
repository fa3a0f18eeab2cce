"""The contract of an engine: what computes a training step. The loop around it is written once, in `training`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mt_core.discovery import Registry

from . import __version__
from .recipe import TrainerOptions

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mt_core.dataset import Batch
    from mt_core.model import Objective

    from .balancers import Balancer
    from .ranks import Ranks

ENGINES = Registry(
    "engines",
    {
        "torch": ("mtrun.torch_engine:TorchEngine", f"mtrun {__version__}"),
        "deepspeed": ("mtrun.deepspeed_engine:DeepSpeedEngine", f"mtrun {__version__}"),
    },
)


@dataclass(frozen=True)
class StepResult:
    """What a step did.

    Attributes:
        losses: of each task, and "penalty" where the adapter has a regulariser; not weighted, over all ranks.
        norm: of the gradient, before clipping.
    """

    losses: dict[str, float]
    norm: float


@dataclass
class Engine(ABC):
    """Computes steps and keeps what they need. Subclasses are dataclasses: their fields are their options.

    With several ranks, every method is called by all of them together, in the same order.
    """

    def refuse(self, options: TrainerOptions, world: int) -> None:  # noqa: B027 - most can do everything
        """Look, before anything is read or built, whether this can work.

        Args:
            options: of the run.
            world: how many ranks take part.

        Raises:
            ConfigError: if it cannot.
        """

    def home(self, device: torch.device) -> torch.device:
        """Where the model is to be built: the device that computes, unless the model has no room there as a whole."""
        return device

    @abstractmethod
    def prepare(
        self, objective: Objective, options: TrainerOptions, device: torch.device, ranks: Ranks, balancer: Balancer
    ) -> None:
        """Make ready to train the objective's model, which is on `home(device)`. Called once.

        Args:
            objective: what is minimised.
            options: of the run.
            device: that computes.
            ranks: the processes that train together; each is given its part of every batch.
            balancer: weighs the tasks' losses; started.
        """

    @abstractmethod
    def step(self, step: int, batches: Sequence[Batch], rate: float) -> StepResult:
        """Take one optimiser step at a learning rate, on gradients averaged over batches.

        Raises:
            NonFiniteError: if a loss or a gradient is not finite, naming task, step and pictures. Nothing has
                changed then, neither a parameter nor a statistic of the norms.
        """

    @abstractmethod
    def averaged(self) -> AbstractContextManager[None]:
        """Within, the model has the weights that are evaluated and saved: the average, where one is kept."""

    @abstractmethod
    def logits(self, images: Tensor) -> dict[str, Tensor]:
        """What the model says of pictures (B, 3, H, W) in [0, 1], without gradients."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """The trained state that an artefact holds (see `mt_core.artefact.trained_state`), averaged where it is."""

    @abstractmethod
    def snapshot(self) -> dict[str, Tensor]:
        """Everything that a step changes, as whole tensors by name, whatever the number of processes:

        trained/NAME for parameters and buffers, optimizer/KEY/NAME, balancer/KEY, and, where an average is kept,
        average/NAME and average_updates.
        """

    @abstractmethod
    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        """Put back what `snapshot` gave, possibly of another engine. Without an average in it, one starts from here.

        Raises:
            CheckpointError: if it is of another model; nothing has changed then.
        """

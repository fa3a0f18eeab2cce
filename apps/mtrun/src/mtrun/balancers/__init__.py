"""The contract of a balancer: how much each task's loss, or its gradient, counts in a step. One file for each method.

Everything a balancer does follows from numbers that are the same on every rank (losses and gradients summed over all of
them) and from the seed and the step; so do its weights, whatever the number of ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mt_core.discovery import Registry
from mt_core.errors import CheckpointError

from .. import __version__

if TYPE_CHECKING:
    from torch import Tensor

_CLASSES = {
    "fixed": "Fixed",
    "uncertainty": "Uncertainty",
    "dwa": "DWA",
    "gradnorm": "GradNorm",
    "pcgrad": "PCGrad",
    "cagrad": "CAGrad",
    "mgda": "MGDA",
    "nash_mtl": "NashMTL",
    "imtl_g": "IMTLG",
    "aligned_mtl": "AlignedMTL",
    "upgrad": "UPGrad",
}
BALANCERS = Registry(
    "balancers",
    {name: (f"mtrun.balancers.{name}:{cls}", f"mtrun {__version__}") for name, cls in _CLASSES.items()},
)


@dataclass
class Balancer:
    """Weighs K tasks; this one, all alike. Subclasses are dataclasses: their fields are their options.

    Class attributes:
        jacobian: whether it needs the gradient of each task's loss with respect to the shared parameters, which is
            what `combine` gets (see `mtrun.balancing`).
    """

    jacobian: ClassVar[bool] = False

    def start(self, tasks: Sequence[str], seed: int, steps_per_epoch: int) -> None:
        """Called once, before training.

        Args:
            tasks: names, in the order of all rows and losses below.
            seed: what is random follows from it and from the step.
            steps_per_epoch: steps that one pass over the training pictures takes, rounded up; at least 1.
        """
        self.tasks, self.seed, self.steps_per_epoch = tuple(tasks), seed, steps_per_epoch
        self.kept = self.initial()

    def initial(self) -> dict[str, Tensor]:
        """What it remembers between steps, as it is before the first: CPU tensors by name. By default nothing."""
        return {}

    def weights(self) -> Tensor:
        """The factor of each task's loss in the coming step: (K,) float32 on the CPU. By default ones."""
        import torch

        return torch.ones(len(self.tasks))

    def combine(self, jacobian: Tensor, step: int) -> Tensor:
        """The direction of the shared parameters' gradient; by default the weighted sum of the rows.

        Args:
            jacobian: (K, P), the gradient of each task's loss without the factor of `weights`, summed over ranks; a
                task without labels in this step has a row of zeros.
            step: the step that is being taken, from 1.

        Returns:
            (P,); not finite where the Jacobian is not.
        """
        return self.weights().to(jacobian) @ jacobian

    def update(self, losses: Tensor, step: int) -> None:
        """Learn from a step that was taken; not called for one that was refused. By default nothing.

        Args:
            losses: (K,) of all ranks, without the factor of `weights`; exactly 0 where a task had no label.
            step: the step, from 1.
        """

    def state(self) -> dict[str, Tensor]:
        """What must be kept for a run to go on exactly: CPU tensors by name."""
        return {name: value.clone() for name, value in self.kept.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave.

        Raises:
            CheckpointError: if it is of another balancer or of another number of tasks; nothing has changed then.
        """
        shapes = {name: tuple(value.shape) for name, value in self.kept.items()}
        if shapes != (found := {name: tuple(value.shape) for name, value in state.items()}):
            raise CheckpointError(
                f"the saved balancer holds {found or 'nothing'}, expected {shapes or 'nothing'}: it is of another "
                f"balancer or of other tasks; go on with those the run was saved with"
            )
        for name, value in state.items():
            self.kept[name].copy_(value)

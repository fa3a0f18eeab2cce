"""What the aggregators of gradients share: the direction is a combination of the tasks' gradients that their inner
products decide, so that each method is a function of a small matrix."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar

import torch
from torch import Tensor

from mt_core.errors import ConfigError

from . import Balancer

COLUMNS = 1 << 20  # of the Jacobian that are in double precision at a time


@dataclass
class Aggregator(Balancer):
    """Combines the tasks' gradients: d = sum_k a_k g_k, with a = a(G), G = J J^T.

    Losses keep a factor of 1, so what is private to a task gets its plain gradient. A task whose gradient is exactly 0
    (no label in this step) takes no part: the method is applied to the others. Otherwise methods that look for a
    direction that harms no task would stand still, since no direction helps one without a gradient.

    Class attributes:
        needs: modules that it imports when it is used.

    Raises:
        ConfigError: if one of them is not installed.
    """

    jacobian: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("torchjd",)

    def __post_init__(self) -> None:
        if missing := [name for name in self.needs if find_spec(name) is None]:
            raise ConfigError(f"this balancer needs {', '.join(missing)}: pip install 'mtrun[balancers]'")

    @abstractmethod
    def weigh(self, gramian: Tensor, step: int) -> Tensor:
        """The coefficient of each gradient.

        Args:
            gramian: (K', K') float64 on the CPU: the inner products of the gradients, none of which is 0.
            step: the step that is being taken.

        Returns:
            (K',)
        """

    def combine(self, jacobian: Tensor, step: int) -> Tensor:
        products = gramian(jacobian).cpu()
        if not products.isfinite().all():
            return jacobian.sum(0)  # not finite: the engine refuses the step
        taking = products.diagonal() > 0
        weights = torch.zeros(len(products), dtype=products.dtype)
        if taking.any():
            weights[taking] = self.weigh(products[taking][:, taking], step)
        return weights.to(jacobian) @ jacobian


def gramian(jacobian: Tensor) -> Tensor:
    """(K, P) -> (K, K) inner products of the rows, in double precision: losses may differ by orders of magnitude."""
    total = torch.zeros(len(jacobian), len(jacobian), dtype=torch.float64, device=jacobian.device)
    for part in jacobian.split(COLUMNS, dim=1):
        total.addmm_(part.double(), part.double().T)
    return total

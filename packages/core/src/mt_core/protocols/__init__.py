"""Evaluation protocols by name: published results compare only where everything that is named here is the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torchmetrics import Metric

from ..errors import ConfigError
from ..task import Task
from . import astmt

__all__ = ["PROTOCOLS", "Protocol", "protocol"]


@dataclass(frozen=True)
class Protocol:
    """How predictions are measured.

    Attributes:
        name: what stands on every result.
        resolution: where predictions and labels are compared, in words.
        kinds: by kind of task, the function that makes its metrics, by name; the first one is what papers print first.
    """

    name: str
    resolution: str
    kinds: Mapping[str, Callable[[Task], dict[str, Metric]]]

    def metrics(self, task: Task) -> dict[str, Metric]:
        """New metrics of a task, by name. `update(prediction, target)` takes what `Task.predict` gives and a label.

        Metrics of one task share their sums: in a `torchmetrics.MetricCollection` these are gathered only once.

        Raises:
            ConfigError: if the protocol does not say how to measure this kind of task.
        """
        kind = task.measured_as or task.kind
        if kind not in self.kinds:
            raise ConfigError(
                f"task {task.name}: protocol {self.name} does not say how to measure the kind {kind!r}; "
                f"it knows {', '.join(self.kinds)}; leave the task out or choose another protocol"
            )
        return self.kinds[kind](task)


PROTOCOLS: dict[str, Protocol] = {"astmt": Protocol("astmt", astmt.RESOLUTION, astmt.KINDS)}


def protocol(name: str) -> Protocol:
    """The protocol of that name. Raises ConfigError."""
    if name not in PROTOCOLS:
        raise ConfigError(f"unknown protocol {name!r}; choose one of {', '.join(sorted(PROTOCOLS))}")
    return PROTOCOLS[name]

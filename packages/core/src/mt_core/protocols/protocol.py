"""What an evaluation protocol is: metrics, averaging, classes and resolution under one name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from torchmetrics import Metric

from ..errors import ConfigError
from ..task import Task

MakeMetrics = Callable[[Task], dict[str, Metric]]


@dataclass(frozen=True)
class Measure:
    """How a protocol measures one kind of task.

    Attributes:
        metrics: makes the metrics of a task by name, those that the papers print first.
        published: how many of them, from the first, the papers print; Delta is taken over these.
        averaging: in words, over what the published ones are averaged.
        slow: makes metrics that are measured only when asked for, some of which take seconds per picture.
    """

    metrics: MakeMetrics
    published: int
    averaging: str
    slow: MakeMetrics | None = None


@dataclass(frozen=True)
class Setting:
    """What a protocol's papers use on one data set.

    Attributes:
        classes: by kind of task.
        size: (height, width) at which predictions and labels are compared; None where papers differ.
    """

    classes: Mapping[str, int]
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Protocol:
    """How predictions are measured.

    Attributes:
        name: what stands on every result.
        source: who measures so.
        resolution: where predictions and labels are compared, in words.
        kinds: how each kind of task is measured.
        settings: what the papers use, by data set.
    """

    name: str
    source: str
    resolution: str
    kinds: Mapping[str, Measure]
    settings: Mapping[str, Setting] = field(default_factory=dict)

    def metrics(self, task: Task) -> dict[str, Metric]:
        """New metrics of a task, by name. `update(prediction, target)` takes what `Task.predict` gives and a label.

        Metrics of one family share their sums: in a `torchmetrics.MetricCollection` each batch is looked at once for
        all of them. Families never share (`mt_core.protocols.totals`). The first `published(task)` are the papers'.

        Raises:
            ConfigError: if the protocol does not say how to measure this kind of task.
        """
        return self._measure(task).metrics(task)

    def thorough(self) -> Protocol:
        """The same protocol with the slow metrics after the others; `metrics` raises ConfigError if a library lacks."""
        return replace(self, kinds={kind: _thorough(measure) for kind, measure in self.kinds.items()})

    def published(self, task: Task) -> tuple[str, ...]:
        """The names of the metrics that papers print of such a task. Raises ConfigError, as `metrics`."""
        measure = self._measure(task)
        return tuple(measure.metrics(task))[: measure.published]

    def departures(self, dataset: str, tasks: Iterable[Task], size: tuple[int, int]) -> list[str]:
        """Sentences on where a run is not as the protocol's papers have it, so that its numbers are not theirs.

        Args:
            dataset: the name of the data set, as plugins register it; of an unknown one nothing is said.
            size: (height, width) at which the run compares predictions with labels.
        """
        if dataset not in self.settings:
            return []
        setting = self.settings[dataset]
        found = [
            f"protocol {self.name} publishes {setting.classes[task.kind]} classes of {task.name} on {dataset}, "
            f"this run has {task.channels}"
            for task in tasks
            if task.kind in setting.classes and task.channels != setting.classes[task.kind]
        ]
        if setting.size is not None and tuple(size) != setting.size:
            found.append(
                f"protocol {self.name} publishes results at {setting.size[0]} x {setting.size[1]} on {dataset}, "
                f"this run compares at {size[0]} x {size[1]}"
            )
        return found

    def _measure(self, task: Task) -> Measure:
        kind = task.measured_as or task.kind
        if kind not in self.kinds:
            raise ConfigError(
                f"task {task.name}: protocol {self.name} does not say how to measure the kind {kind!r}; "
                f"it knows {', '.join(self.kinds)}; leave the task out or choose another protocol"
            )
        return self.kinds[kind]


def _thorough(measure: Measure) -> Measure:
    fast, slow = measure.metrics, measure.slow
    if slow is None:
        return measure
    return replace(measure, metrics=lambda task: fast(task) | slow(task), slow=None)

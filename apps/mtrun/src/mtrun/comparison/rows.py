"""Rows of a comparison: runs that differ only in seed are one, and so are single-task runs of one configuration."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mt_core.errors import ConfigError
from mt_core.published import PublishedRow, PublishedTable

from .finished import OUTSIDE, Finished, Scores, clean

MOST_OPTIONS = 4  # in the name of a row


@dataclass(frozen=True)
class Statistic:
    """A number over the seeds of a row.

    Attributes:
        mean: NaN where nothing was measured.
        deviation: sample standard deviation (n - 1 in the denominator); NaN of fewer than two.
        n: over how many.
    """

    mean: float
    deviation: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Statistic:
        """That of the finite ones among some values."""
        found = [value for value in values if math.isfinite(value)]
        deviation = statistics.stdev(found) if len(found) > 1 else math.nan
        return cls(statistics.fmean(found) if found else math.nan, deviation, len(found))


NOTHING = Statistic(math.nan, math.nan, 0)


@dataclass(frozen=True)
class Member:
    """What one seed gave: a run, or a run per task."""

    runs: tuple[Finished, ...]

    @property
    def scores(self) -> Scores:
        """The metrics of all of them."""
        return {task: metrics for run in self.runs for task, metrics in run.scores.items()}

    def cost(self, name: str) -> float:
        """What they cost together; memory: what the largest needs. NaN if one does not say."""
        values = [run.costs.get(name, math.nan) for run in self.runs]
        return max(values) if name.endswith("_mib") and not any(map(math.isnan, values)) else math.fsum(values)


@dataclass(frozen=True)
class Row:
    """One method in a comparison.

    Attributes:
        members: one per seed; none of a published row.
        metrics, costs: over the members; of a published row, what was printed. Costs as `Finished.costs` names them.
        directions: of its metrics.
        printed: digits of metrics as published, by (task, metric).
        printed_gain: the gain that the paper prints over its own baseline; empty without.
        source: where it was published; empty for what was measured here.
        note: what a reader must know.
        delta_m, delta_b: gain over the baseline of its table, in percent.
    """

    name: str
    adapter: str
    backbone: str
    decoder: str
    init: str
    members: tuple[Member, ...]
    metrics: Mapping[str, Mapping[str, Statistic]]
    directions: Mapping[str, Mapping[str, str]]
    costs: Mapping[str, Statistic]
    printed: Mapping[tuple[str, str], str] = field(default_factory=dict)
    printed_gain: str = ""
    source: str = ""
    note: str = ""
    is_baseline: bool = False
    delta_m: Statistic = NOTHING
    delta_b: Statistic = NOTHING

    @property
    def n(self) -> int:
        """How many seeds."""
        return len(self.members)

    @property
    def scores(self) -> Scores:
        """The means of the metrics."""
        return {task: {name: value.mean for name, value in found.items()} for task, found in self.metrics.items()}

    @property
    def runs(self) -> list[Finished]:
        """Every run in it."""
        return [run for member in self.members for run in member.runs]

    def metric(self, task: str, name: str) -> Statistic:
        """One of its metrics, whether it has it or not."""
        return self.metrics.get(task, {}).get(name, NOTHING)

    def cost(self, name: str) -> Statistic:
        """One of its costs, whether it is known or not."""
        return self.costs.get(name, NOTHING)


def rows_of(runs: Sequence[Finished], names: Mapping[str, str]) -> list[Row]:
    """The rows of measured runs, in the order in which they first occur.

    Args:
        names: for rows, by the folder of one of their runs; others are named by what tells them apart.

    Raises:
        ConfigError: if two runs have the same configuration and seed.
    """
    groups: dict[str, list[Finished]] = {}
    for run in runs:
        groups.setdefault(_identity(run, split=_is_single(run)), []).append(run)
    parts = list(groups.values())
    for part in parts:
        _refuse_twice(part)
    labels = _labels(parts)
    return [_row(part, _given(part, names) or label) for part, label in zip(parts, labels, strict=True)]


def published_row(table: PublishedTable, row: PublishedRow) -> Row:
    """A row of a paper, marked as one."""
    costs = {"trainable": table.parameters(row), "gmacs_published": float(row.gmacs) if row.gmacs else None}
    if costs["trainable"] is not None:
        costs["mib"] = float(row.parameters) if table.unit == "MiB" else costs["trainable"] * 4 / 2**20
    symbol = {"delta_m": "\u0394m", "delta_b": "\u0394b"}[table.delta]
    note = ""
    if row.method in table.doubtful:
        note = f"the paper prints {symbol} {row.delta}, its own metrics give {table.recomputed(row):+.2f}"
    return Row(
        name=row.method,
        adapter="",
        backbone=table.backbone,
        decoder="",
        init="",
        members=(),
        metrics={
            task: {name: Statistic(value, math.nan, 1) for name, value in found.items()}
            for task, found in row.scores.items()
        },
        directions=table.directions,
        costs={name: Statistic(value, math.nan, 1) for name, value in costs.items() if value is not None},
        printed={(task, name): text for task, found in row.metrics.items() for name, text in found.items()},
        printed_gain=f"{symbol} {row.delta}" if row.delta else "",
        source=f"{table.paper}, {table.key.partition(':')[2].replace('table', 'Table ')}",
        note=note,
    )


def _is_single(run: Finished) -> bool:
    return len(run.scores) == 1 and bool(run.config)


def _identity(run: Finished, split: bool = False) -> str:
    """What a run shares with those of its row; `split`: with those for other tasks, too."""
    if not run.config:  # nothing says what it is
        return f"folder {run.folder}"
    left_out = OUTSIDE | {"tasks"} if split else OUTSIDE
    return json.dumps([split, {k: v for k, v in sorted(run.config.items()) if k not in left_out}], default=str)


def _refuse_twice(runs: Sequence[Finished]) -> None:
    """A row has one run for a task and seed. Raises ConfigError."""
    (seed, task), most = Counter((run.seed, task) for run in runs for task in run.scores).most_common(1)[0]
    if most > 1:
        twice = [run.folder for run in runs if run.seed == seed and task in run.scores]
        raise ConfigError(
            f"{twice[0]} and {twice[1]} have the same configuration and the same seed ({seed}): that is one result, "
            f"not two; give one of them"
        )


def _row(runs: Sequence[Finished], name: str) -> Row:
    tasks = list(dict.fromkeys(task for run in runs for task in run.scores))
    seeds = dict.fromkeys(run.seed for run in runs)
    members = tuple(Member(tuple(run for run in runs if run.seed == seed)) for seed in seeds)
    whole = [member for member in members if len(member.scores) == len(tasks)]
    directions = {task: way for run in runs for task, way in run.directions.items()}
    first, single = runs[0], any(len(member.runs) > 1 for member in members)
    missing = len(members) - len(whole)
    return Row(
        name=f"{name}, one model per task" if single else name,
        adapter=first.adapter,
        backbone=first.backbone,
        decoder=first.decoder,
        init=first.init,
        members=members,
        metrics={
            task: {
                metric: Statistic.of(member.scores.get(task, {}).get(metric, math.nan) for member in members)
                for metric in directions[task]
            }
            for task in tasks
        },
        directions=directions,
        costs={name: Statistic.of(member.cost(name) for member in whole) for run in runs for name in run.costs},
        note=f"{missing} of {len(members)} seeds lack a task" if missing else "",
    )


def _given(part: Sequence[Finished], names: Mapping[str, str]) -> str:
    found = (names.get(str(run.folder)) for run in part)
    return next((name for name in found if name), "")


def _labels(parts: Sequence[Sequence[Finished]]) -> list[str]:
    """A name for each row: its adapter, and the options in which it differs from others of the same adapter."""
    labels = []
    for part in parts:
        run = part[0]
        others = [other[0].config for other in parts if other[0].adapter == run.adapter and other[0].config]
        differing = [key for key in run.config if any(other.get(key) != run.config[key] for other in others)]
        has_all = run.config.get("tasks") is None or not _is_whole(part)
        left_out = OUTSIDE | {"tasks"} if has_all else OUTSIDE
        told = [key for key in differing if key not in left_out]
        shown = [f"{key.removeprefix('adapter.')}={_short(run.config[key])}" for key in told]
        labels.append(", ".join([run.adapter or run.folder.name, *shown[:MOST_OPTIONS]]))
    kinds = [_is_whole(part) for part in parts]
    twice = {key for key, count in Counter(zip(labels, kinds, strict=True)).items() if count > 1}
    return [
        f"{name} ({part[0].folder.name})" if (name, kind) in twice else name
        for name, kind, part in zip(labels, kinds, parts, strict=True)
    ]


def _is_whole(part: Sequence[Finished]) -> bool:
    """Whether each run of a row has all tasks of the row."""
    return len(part[0].scores) == len({task for run in part for task in run.scores})


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return clean(text.replace('"', "").replace(" ", ""), 40)

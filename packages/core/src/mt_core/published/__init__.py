"""The rows that papers print, as they print them: to be shown beside what is measured, and as baselines of deltas.

A table is named PAPER:TABLE, as in `mtlora:table1`. The digits are kept as text, so that 67.9 stays what was printed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

from ..deltas import delta_b
from ..errors import ConfigError

MIB = 2**20 / 4  # parameters in float32

_WAYS = {"^": "higher", "v": "lower"}


@dataclass(frozen=True)
class PublishedRow:
    """A row of a table. What a paper does not print is an empty string.

    Attributes:
        metrics: digits by task, by name of the metric.
        delta: the overall gain that the paper prints, in percent, over its own baseline.
        parameters: trainable ones, in the unit of the table.
        gmacs: billions of multiply-accumulates of a prediction, in the published convention.
    """

    method: str
    metrics: Mapping[str, Mapping[str, str]]
    delta: str
    parameters: str
    gmacs: str

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """The metrics as numbers."""
        return {task: {name: float(text) for name, text in found.items()} for task, found in self.metrics.items()}


@dataclass(frozen=True)
class PublishedTable:
    """A table of a paper.

    Attributes:
        key: PAPER:TABLE.
        delta: `delta_m` or `delta_b`, whichever the paper prints.
        baseline: the row that its deltas are relative to, which may stand in another table; None if there is none.
        tasks: channels by task.
        directions: of every metric, `higher` or `lower`.
        unit: of the parameters: `million`, or `MiB` (float32, 2^20 bytes; the papers write MB or M).
        note: what a reader must know.
        doubtful: methods whose delta does not follow from their metrics, whatever was lost in rounding.
    """

    key: str
    paper: str
    reference: str
    caption: str
    dataset: str
    protocol: str
    backbone: str
    delta: str
    baseline: PublishedRow | None
    tasks: Mapping[str, int]
    directions: Mapping[str, Mapping[str, str]]
    unit: str
    note: str
    doubtful: tuple[str, ...]
    rows: tuple[PublishedRow, ...]

    def recomputed(self, row: PublishedRow) -> float:
        """The delta that follows from the printed metrics of a row and of the baseline, in percent.

        Raises:
            ConfigError: if the paper prints no metrics.
        """
        baseline = {} if self.baseline is None else self.baseline.scores
        return delta_b(row.scores, baseline, self.directions)

    def parameters(self, row: PublishedRow) -> float | None:
        """How many parameters a row trains, as exactly as they are printed."""
        return float(row.parameters) * (1e6 if self.unit == "million" else MIB) if row.parameters else None


def keys() -> list[str]:
    """The names of all tables."""
    return [f"{paper}:{table}" for paper, tables in _papers().items() for table in tables if table.startswith("table")]


def published(key: str) -> PublishedTable:
    """The table of that name.

    Raises:
        ConfigError: if there is none.
    """
    if key not in keys():
        guess = get_close_matches(key.lower(), keys(), n=1, cutoff=0.4)
        hint = f"did you mean {guess[0]!r}? " if guess else ""
        raise ConfigError(f"unknown table {key!r} of a paper; {hint}there are {', '.join(keys())}")
    paper, _, name = key.partition(":")
    values = _papers()[paper]
    table = values[name]
    columns = [_column(text) for text in table["metrics"]]
    directions: dict[str, dict[str, str]] = {task: {} for task in table["tasks"]} if columns else {}
    for task, metric, way in columns:
        directions[task][metric] = way
    baseline = table["baseline"]
    other, _, method = baseline.rpartition(":")
    home = values[other] if other else table
    return PublishedTable(
        key=key,
        paper=values["paper"],
        reference=values["reference"],
        caption=table["caption"],
        dataset=table["dataset"],
        protocol=table["protocol"],
        backbone=table["backbone"],
        delta=table["delta"],
        baseline=next(row for row in _rows(home) if row.method == method) if baseline else None,
        tasks=table["tasks"],
        directions=directions,
        unit=table["parameters"],
        note=table.get("note", ""),
        doubtful=tuple(table.get("doubtful", ())),
        rows=tuple(_rows(table)),
    )


@cache
def _papers() -> dict[str, dict[str, Any]]:
    """The files beside this one, by paper."""
    found = sorted((file for file in files(__name__).iterdir() if file.name.endswith(".toml")), key=lambda f: f.name)
    return {file.name.removesuffix(".toml"): tomllib.loads(file.read_text("utf-8")) for file in found}


def _column(text: str) -> tuple[str, str, str]:
    """'semseg.miou ^' -> task, metric, direction"""
    name, way = text.split()
    task, metric = name.split(".")
    return task, metric, _WAYS[way]


def _rows(table: Mapping[str, Any]) -> list[PublishedRow]:
    columns = [_column(text) for text in table["metrics"]]
    rows = []
    for method, *cells in table["rows"]:
        metrics: dict[str, dict[str, str]] = {}
        for (task, metric, _), cell in zip(columns, cells, strict=False):
            metrics.setdefault(task, {})[metric] = cell
        delta, parameters, gmacs = (*cells[len(columns) :], "")[:3]
        rows.append(PublishedRow(method, metrics, delta, parameters, gmacs))
    return rows

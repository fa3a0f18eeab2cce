"""Which rows may stand in one table, and the gains over a baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mt_core.deltas import counted, delta_b, delta_m
from mt_core.errors import ConfigError
from mt_core.published import PublishedRow, PublishedTable, published

from .finished import Finished, Scores, read_run
from .rows import NOTHING, Row, Statistic, published_row, rows_of


@dataclass(frozen=True)
class Table:
    """Rows whose numbers may be compared: one protocol, one data set, the same pictures at one size.

    Attributes:
        title: the protocol, the data set, and the size of the network's input.
        apart: why it is another table than the first; empty of the first.
        tasks: channels by task, of all rows.
        metrics: the names of each task's metrics, the main one first, with their direction.
        baseline: what the gains of the rows are relative to; empty without gains.
        reference: its metrics.
        notes: what holds for the whole table.
    """

    title: str
    apart: str
    protocol: str
    dataset: str
    tasks: Mapping[str, int]
    metrics: Mapping[str, Mapping[str, str]]
    rows: tuple[Row, ...]
    baseline: str = ""
    reference: Scores = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def measured(self) -> list[Row]:
        """The rows that were not published but run."""
        return [row for row in self.rows if not row.source]


@dataclass(frozen=True)
class Comparison:
    """Everything that is compared, table by table. Numbers of different tables are not to be compared.

    Attributes:
        weights: whose metrics these are: `best`, of the evaluation with the lowest loss, or `final`.
    """

    tables: tuple[Table, ...]
    weights: str


def compare_runs(
    folders: Sequence[Path],
    papers: Sequence[str] = (),
    baseline: Sequence[str] = (),
    weights: str = "best",
    names: Mapping[str, str] | None = None,
) -> Comparison:
    """Lay runs beside each other, and beside published rows.

    Args:
        folders: of runs that are done.
        papers: tables of papers, as `mtlora:table1`.
        baseline: folders of runs (single-task ones count together), or one table of a paper; empty: no gains.
        weights: `best` or `final`, whose metrics are taken.
        names: for rows, by the folder of one of their runs.

    Raises:
        CheckpointError: if a run is not done, or damaged.
        ConfigError: if a table or a baseline cannot be what is asked for.
    """
    shown = [published(key) for key in dict.fromkeys(papers)]
    paper = _paper(baseline)
    based = [] if paper else [Path(word) for word in baseline]
    every: dict[Path, Path] = {}  # each folder once, as it was named first
    for folder in (*folders, *based):
        every.setdefault(folder.resolve(), folder)
    if not every and not shown:
        raise ConfigError("nothing to compare: give folders of runs, or --paper PAPER:TABLE")
    runs = [read_run(folder, weights) for folder in every.values()]
    home = {folder.resolve() for folder in based}
    chosen = {run.folder for run in runs if run.folder.resolve() in home}
    tables: list[Table] = []
    for apart, group in _groups(runs):
        rows = rows_of(group, names or {})
        rows = [replace(row, is_baseline=any(run.folder in chosen for run in row.runs)) for row in rows]
        tables.append(_table(group, rows, apart))
    tables = _with_papers(tables, shown)
    if paper is not None and paper.baseline is not None:
        tables = _against_paper(tables, paper, paper.baseline)
    return Comparison(tuple(_against_own(table) for table in tables), weights)


def why_apart(a: Finished, b: Finished) -> str:
    """Why the numbers of two runs must not be compared; empty if they may be."""
    for what in ("protocol", "dataset"):
        if getattr(a, what) != getattr(b, what):
            return f"{what} {getattr(a, what)} there, {getattr(b, what)} here"
    if a.image_size != b.image_size:
        return f"image_size {_size(a.image_size)} there, {_size(b.image_size)} here"
    for task in a.tasks.keys() & b.tasks.keys():
        if a.tasks[task] != b.tasks[task]:
            return f"task {task} with {a.tasks[task]} channels there, {b.tasks[task]} here"
    if a.config and b.config:
        for key in [*a.pictures, *b.pictures]:
            if a.pictures.get(key) != b.pictures.get(key):
                return f"{key}={a.pictures.get(key)} there, {b.pictures.get(key)} here"
    if None not in (a.images, b.images) and a.images != b.images:
        return f"measured on {a.images} pictures there, on {b.images} here"
    return ""


def _groups(runs: Sequence[Finished]) -> list[tuple[str, list[Finished]]]:
    """Runs that may be compared, with the reason why they are apart from the first group."""
    groups: list[tuple[str, list[Finished]]] = []
    for run in runs:
        for _, group in groups:
            if not any(why_apart(other, run) for other in group):
                group.append(run)
                break
        else:
            reasons = (why_apart(other, run) for other in groups[0][1]) if groups else iter(())
            groups.append((next((reason for reason in reasons if reason), ""), [run]))
    return groups


def _table(group: Sequence[Finished], rows: Sequence[Row], apart: str) -> Table:
    first = group[0]
    facts = [f"protocol {first.protocol}", f"data set {first.dataset}"]
    facts += [_size(first.image_size)] if first.image_size else []
    images = next((run.images for run in group if run.images is not None), None)
    facts += [] if images is None else [f"{images} pictures"]
    tasks = {task: channels for run in group for task, channels in run.tasks.items() if task in run.scores}
    return Table(", ".join(facts), apart, first.protocol, first.dataset, tasks, _metrics(rows), tuple(rows))


def _metrics(rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    metrics: dict[str, dict[str, str]] = {}
    for row in rows:
        for task, found in row.directions.items():
            metrics.setdefault(task, {}).update({k: v for k, v in found.items() if k not in metrics.get(task, {})})
    return metrics


def _with_papers(tables: Sequence[Table], papers: Sequence[PublishedTable]) -> list[Table]:
    """Each paper's rows in the first table where they may stand, or in a table of their own."""
    found = list(tables)
    for paper in papers:
        place = next((i for i, table in enumerate(found) if table.measured and not why_not(table, paper)), None)
        if place is None:
            found.append(_published(paper, why_not(tables[0], paper) if tables else ""))
        else:
            table, rows = found[place], [published_row(paper, row) for row in paper.rows]
            found[place] = replace(table, rows=(*table.rows, *rows), notes=(*table.notes, _said(paper)))
    return found


def _published(paper: PublishedTable, apart: str) -> Table:
    """A table of nothing but published rows, gains relative to the paper's own baseline."""
    rows = [published_row(paper, row) for row in paper.rows]
    title = f"published: protocol {paper.protocol}, data set {paper.dataset}"
    table = Table(
        title, apart, paper.protocol, paper.dataset, paper.tasks, _metrics(rows), tuple(rows), notes=(_said(paper),)
    )
    if paper.baseline is None:
        return table
    rows = [replace(row, is_baseline=row.name == paper.baseline.method) for row in rows]
    return _with_deltas(replace(table, rows=tuple(rows)), _name(paper), paper.baseline.scores)


def _name(paper: PublishedTable) -> str:
    return f"{paper.baseline.method} of {paper.key}, published" if paper.baseline else paper.key


def why_not(table: Table, paper: PublishedTable) -> str:
    """Why a paper's rows must not stand beside those of a table; empty if they may."""
    for what in ("protocol", "dataset"):
        if getattr(table, what) != getattr(paper, what):
            return f"{what} {getattr(paper, what)} in the paper, {getattr(table, what)} in the runs"
    shared = table.tasks.keys() & paper.tasks.keys()
    for task in shared:
        if table.tasks[task] != paper.tasks[task]:
            return f"task {task} with {paper.tasks[task]} channels in the paper, {table.tasks[task]} in the runs"
    if paper.directions and not any(name in table.metrics[task] for task in shared for name in paper.directions[task]):
        return "no metric in common"
    return ""


def _said(paper: PublishedTable) -> str:
    note = f" ({paper.note})" if paper.note else ""
    return f"{paper.key}: {paper.reference}; {paper.caption}{note}. Published numbers, not measured here."


def _paper(baseline: Sequence[str]) -> PublishedTable | None:
    """The paper's table among what was given as baseline, if it is one."""
    keys = [word for word in baseline if ":" in word and not Path(word).exists()]
    if not keys:
        return None
    if len(baseline) > 1:
        raise ConfigError(f"baseline={','.join(baseline)}: expected folders of runs, or one table of a paper")
    table = published(keys[0])
    if table.baseline is None:
        raise ConfigError(f"baseline={keys[0]}: the metrics of its baseline are not known; choose another table")
    return table


def _against_paper(tables: Sequence[Table], paper: PublishedTable, baseline: PublishedRow) -> list[Table]:
    """The tables of runs, gains relative to a paper's baseline where they may be."""
    reasons = [why_not(table, paper) or _lacking(table, paper) for table in tables]
    wanted = [reason for table, reason in zip(tables, reasons, strict=True) if table.measured] or reasons
    if all(wanted):
        raise ConfigError(f"baseline={paper.key} does not fit: {wanted[0]}; train on what the paper did, or leave it")
    return [
        table if reason else _with_deltas(table, _name(paper), baseline.scores)
        for table, reason in zip(tables, reasons, strict=True)
    ]


def _lacking(table: Table, paper: PublishedTable) -> str:
    missing = table.tasks.keys() - paper.tasks.keys()
    return f"the paper has no task {min(missing)}" if missing else ""


def _against_own(table: Table) -> Table:
    """The table, gains relative to those of its rows that are its baseline."""
    rows = [row for row in table.rows if row.is_baseline]
    if table.baseline or not rows:
        return table
    scores: Scores = {}
    for row in rows:
        for task, found in row.scores.items():
            if task in scores:
                raise ConfigError(
                    f"baseline: {rows[0].name} and {row.name} both have task {task}, but are different "
                    f"configurations; give runs of one"
                )
            scores[task] = found
    name = rows[0].name if len(rows) == 1 else " + ".join(row.name for row in rows)
    seeds = f", mean of {rows[0].n} seeds" if rows[0].n > 1 else ""
    return _with_deltas(table, f"{name}{seeds}", scores)


def _with_deltas(table: Table, name: str, baseline: Scores) -> Table:
    """Gains over all tasks of the table: a row or a baseline that lacks one has none."""
    if missing := table.tasks.keys() - baseline.keys():
        note = f"No overall gain: the baseline {name} has no task {', '.join(sorted(missing))}."
        return replace(table, baseline=name, reference=baseline, notes=(*table.notes, note))
    rows = [
        replace(
            row,
            delta_m=_gain(row, table, baseline, "delta_m"),
            delta_b=_gain(row, table, baseline, "delta_b"),
        )
        for row in table.rows
    ]
    return replace(table, rows=tuple(rows), baseline=name, reference=baseline)


def _gain(row: Row, table: Table, baseline: Scores, key: str) -> Statistic:
    if row.metrics.keys() != table.tasks.keys():
        return NOTHING
    scores = [member.scores for member in row.members] if row.members else [row.scores]
    return Statistic.of(_delta(found, table, baseline, key) for found in scores)


def _delta(scores: Scores, table: Table, baseline: Scores, key: str) -> float:
    """NaN where a task is missing, or the baseline's metrics are not the model's."""
    if scores.keys() != table.tasks.keys():
        return math.nan
    ordered = {task: {k: scores[task][k] for k in table.metrics[task] if k in scores[task]} for task in table.tasks}
    both = {
        task: {name: value for name, value in found.items() if name in baseline[task]}
        for task, found in (ordered if key == "delta_m" else counted(ordered, table.protocol)).items()
    }
    if not all(both.values()):
        return math.nan
    if key == "delta_m" and any(next(iter(both[task])) != next(iter(table.metrics[task])) for task in both):
        return math.nan  # its main metric is missing, and another must not stand for it
    return (delta_m if key == "delta_m" else delta_b)(both, baseline, table.metrics)


def _size(size: Sequence[int]) -> str:
    return " x ".join(map(str, size)) or "unknown"

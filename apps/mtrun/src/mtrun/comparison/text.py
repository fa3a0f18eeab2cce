"""A comparison as tables on the terminal, Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..json_values import plain_numbers
from . import cells
from .rows import Row, Statistic
from .tables import Comparison, Table

if TYPE_CHECKING:
    from rich.console import Console

Grid = tuple[list[str], list[list[str]]]  # columns, rows

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for one


def show(comparison: Comparison, console: Console) -> None:
    """Print it: the main metric of each task, gains, and costs."""
    from rich.table import Table as Drawn
    from rich.text import Text

    for number, table in enumerate(comparison.tables, 1):
        for line in heading(comparison, number):
            console.print(Text(line), soft_wrap=True)
        for columns, body in (_results(table), _costs(table)):
            if not body:
                continue
            grid = Drawn()
            for place, column in enumerate(columns):
                grid.add_column(Text(column), justify="right" if place else "left")
            for line_of_cells in body:
                grid.add_row(*map(Text, line_of_cells))
            console.print(grid)


def markdown(comparison: Comparison) -> str:
    """A Markdown page: of each table all metrics, gains and costs."""
    lines = ["# Comparison", ""]
    for number, table in enumerate(comparison.tables, 1):
        title, *rest = heading(comparison, number)
        lines += [f"## {_marked(title)}", "", *(f"{_marked(line)}\n" for line in rest)]
        for columns, body in (_results(table, every=True), _costs(table)):
            if body:
                lines += [_line(columns), "|---|" + "---:|" * (len(columns) - 1), *map(_line, body), ""]
        notes = [f"* {_marked(row.name)}: {_marked(row.note)}" for row in table.rows if row.note]
        lines += [*notes, ""] if notes else []
    return "\n".join(lines)


def comma_separated(comparison: Comparison) -> str:
    """CSV: a line per row of every table, full digits; empty where nothing is known."""
    metrics = list(dict.fromkeys(m[:2] for table in comparison.tables for m in cells.all_metrics(table)))
    names = [f"{task}.{name}" for task, name in metrics] + ["delta_m", "delta_b", *cells.COSTS]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    fixed = ["table", "protocol", "dataset", "row", "source", "backbone", "decoder", "baseline", "n"]
    writer.writerow([*fixed, *map(_guarded, names), *(f"{_guarded(name)} sd" for name in names), "note"])
    for number, table in enumerate(comparison.tables, 1):
        for row in table.rows:
            found = [row.metric(*key) for key in metrics] + [row.delta_m, row.delta_b, *map(row.cost, cells.COSTS)]
            source = f"published: {row.source}" if row.source else "measured"
            words = [table.protocol, table.dataset, row.name, source, row.backbone, row.decoder]
            baseline = [table.baseline, "" if row.source else row.n]
            values = [x.mean if x.n else "" for x in found]
            deviations = [x.deviation if x.n > 1 else "" for x in found]
            writer.writerow(map(_guarded, [number, *words, *baseline, *values, *deviations, row.note]))
    return stream.getvalue()


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Plain values, for `--json`."""
    found: dict[str, Any] = plain_numbers(
        {
            "weights": comparison.weights,
            "tables": [
                {
                    "title": table.title,
                    "apart": table.apart,
                    "protocol": table.protocol,
                    "dataset": table.dataset,
                    "tasks": dict(table.tasks),
                    "directions": {task: dict(ways) for task, ways in table.metrics.items()},
                    "baseline": table.baseline or None,
                    "notes": list(table.notes),
                    "rows": [_row(row) for row in table.rows],
                }
                for table in comparison.tables
            ],
        }
    )
    return found


def heading(comparison: Comparison, number: int) -> list[str]:
    """The title of a table, and what must be known to read it."""
    table = comparison.tables[number - 1]
    many = len(comparison.tables) > 1
    lines = [f"Table {number}: {table.title}" if many else table.title]
    if table.apart:
        lines.append(f"Not to be compared with table 1: {table.apart}.")
    if table.measured:
        lines.append(f"Weights: {comparison.weights}. n: seeds; {cells.PLUS_MINUS}: standard deviation over them.")
    if table.baseline:
        lines.append(f"Gains over: {table.baseline}.")
    return [*lines, *table.notes]


def _results(table: Table, every: bool = False) -> Grid:
    metrics = cells.all_metrics(table) if every else cells.main_metrics(table)
    gains, printed = cells.gains(table), any(row.printed_gain for row in table.rows)
    columns = ["", "n", *(f"{task} {name} {cells.ARROWS[way]}" for task, name, way in metrics)]
    columns += [title for title, _ in gains] + (["as printed"] if printed else [])
    body = []
    for row in table.rows:
        values = [cells.metric(row, task, name) for task, name, _ in metrics]
        values += [cells.gain(getattr(row, key)) for _, key in gains]
        values += [row.printed_gain or cells.NONE] if printed else []
        body.append([cells.label(row, table), cells.seeds(row), *values])
    return columns, body


def _costs(table: Table) -> Grid:
    names = cells.shown_costs(table)
    columns = ["", "n", *(cells.COSTS[name][0] for name in names)]
    body = [
        [cells.label(row, table), cells.seeds(row), *(cells.cost(row, name) for name in names)] for row in table.rows
    ]
    return columns, body if names else []


def _row(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "published": row.source or None,
        "adapter": row.adapter,
        "backbone": row.backbone,
        "decoder": row.decoder,
        "backbone_init": row.init,
        "is_baseline": row.is_baseline,
        "n": row.n,
        "runs": [str(run.folder) for run in row.runs],
        "metrics": {
            task: {name: _statistic(found) for name, found in values.items()} for task, values in row.metrics.items()
        },
        "delta_m": _statistic(row.delta_m),
        "delta_b": _statistic(row.delta_b),
        "costs": {name: _statistic(row.cost(name)) for name in cells.COSTS},
        "printed_gain": row.printed_gain or None,
        "note": row.note,
    }


def _statistic(found: Statistic) -> dict[str, Any]:
    return {"mean": found.mean, "sd": found.deviation, "n": found.n}


def _marked(text: str) -> str:
    """Text in which Markdown means nothing."""
    for letter in "\\`*_[]<>|#":
        text = text.replace(letter, f"\\{letter}")
    return text


def _line(values: Sequence[str]) -> str:
    return f"| {' | '.join(map(_marked, values))} |"


def _guarded(value: Any) -> Any:
    """A value that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value

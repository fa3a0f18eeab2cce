"""A comparison as one HTML file: no script, nothing from the network, and every text from a run escaped."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files

from PIL import Image

from mt_core.accounting import CONVENTION
from mt_core.deltas import relative_change

from .. import __version__
from . import cells, charts
from .finished import clean
from .gallery import RAMP, VOID, Gallery, Strip
from .rows import Row
from .tables import Comparison, Table
from .text import heading

SHOWN = 256  # pixels, the width of a picture in the file
LONGEST_NOTE = 10_000  # letters
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def html(comparison: Comparison, galleries: Sequence[Gallery], title: str, notes: Sequence[str] = ()) -> str:
    """The page.

    Args:
        galleries: one per table.
        notes: paragraphs of plain text below the title.
    """
    title = clean(title)
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_style()}</style></head><body><header><h1>{escape(title)}</h1>",
        *(f'<p class="lead">{escape(clean(note, LONGEST_NOTE))}</p>' for note in notes),
        "</header><main>",
    ]
    for number, found in enumerate(galleries, 1):
        parts += _section(comparison, number, found)
    parts += ["</main>", _footer(), "</body></html>\n"]
    return "\n".join(parts)


def pareto_charts(table: Table) -> list[str]:
    """The overall gain against trainable parameters; without gains, each task's main metric against them."""
    rows = [row for row in table.rows if row.cost("trainable").mean > 0]
    marks = [_mark(row, row.delta_m.mean, row.delta_m.deviation, cells.gain(row.delta_m)) for row in rows]
    if marks := [m for m in marks if math.isfinite(m.y)]:
        return [charts.pareto(marks, "\u0394m, %")] if len(marks) > 1 else []
    found = []
    for task, name, way in cells.main_metrics(table):
        marks = [m for row in rows if math.isfinite((m := _metric_mark(row, task, name)).y)]
        if len(marks) > 1:
            found.append(charts.pareto(marks, f"{task} {name} {cells.ARROWS[way]}", way == "higher"))
    return found


def bar_charts(table: Table) -> dict[str, str]:
    """For each task a chart with a bar per row, of its main metric."""
    found = {}
    for task, name, way in cells.main_metrics(table):
        marks = [m for row in table.rows if math.isfinite((m := _metric_mark(row, task, name)).y)]
        reference = table.reference.get(task, {}).get(name, math.nan)
        if marks:
            found[task] = charts.bars(marks, f"{task}: {name} {cells.ARROWS[way]}", reference)
    return found


def _section(comparison: Comparison, number: int, gallery: Gallery) -> Iterator[str]:
    table = comparison.tables[number - 1]
    first, *rest = heading(comparison, number)
    yield f'<section id="table-{number}"><h2>{escape(first)}</h2>'
    for line in rest:
        yield f'<p class="{"apart" if line.startswith("Not to be compared") else "note"}">{escape(line)}</p>'
    yield _results(table)
    yield _costs(table)
    yield from _charts(table)
    yield from _pictures(gallery)
    yield from _origins(table)
    yield "</section>"


def _results(table: Table) -> str:
    """The main metric of every task, and the overall gains."""
    metrics, gains = cells.main_metrics(table), cells.gains(table)
    printed = any(row.printed_gain for row in table.rows)
    if not (metrics or printed):
        return ""
    head = "".join(
        f"<th>{escape(task)}<small>{escape(name)} {cells.ARROWS[way]}</small></th>" for task, name, way in metrics
    )
    head += "".join(f"<th{_first(i)}>{title}</th>" for i, (title, _) in enumerate(gains))
    head += "<th>as printed</th>" if printed else ""
    lines = []
    for row in table.rows:
        line = f"<td>{cells.seeds(row)}</td>{_values(row, table, metrics)}"
        line += "".join(_gain(row, key, i == 0) for i, (_, key) in enumerate(gains))
        line += f"<td>{escape(row.printed_gain or cells.NONE)}</td>" if printed else ""
        lines.append(_row(row, line))
    return f"<h3>Results</h3>{_scrolling(f'<th>n</th>{head}', lines)}"


def _task(table: Table, task: str, bars: str) -> str:
    """A bar per row, and below it all metrics of the task where there are several."""
    metrics = [m for m in cells.all_metrics(table) if m[0] == task]
    if len(metrics) < 2:
        return f"<div>{bars}</div>"
    head = "".join(f"<th>{escape(name)} {cells.ARROWS[way]}</th>" for _, name, way in metrics)
    lines = [_row(row, _values(row, table, metrics), short=True) for row in table.rows if task in row.metrics]
    return f'<div>{bars}<div class="small">{_scrolling(head, lines)}</div></div>'


def _costs(table: Table) -> str:
    names = cells.shown_costs(table)
    if not names:
        return ""
    head = "".join(f"<th>{escape(cells.COSTS[name][0])}</th>" for name in names)
    lines = [
        _row(row, "".join(f"<td>{_spread(cells.cost(row, name))}</td>" for name in names), short=True)
        for row in table.rows
    ]
    return f"<h3>Costs</h3>{_scrolling(head, lines)}"


def _charts(table: Table) -> Iterator[str]:
    found, bars = pareto_charts(table), bar_charts(table)
    any_published = any(row.source for row in table.rows)
    legend = '<p class="legend"><b>\u25cf</b> measured'
    legend += "; <i>\u25cb</i> published, not measured here" if any_published else ""
    legend += "; dashed: the Pareto front of the measured rows" if table.measured else ""
    if found:
        yield "<h3>Accuracy against trainable parameters</h3>"
        yield f"{legend}. Lines through marks: standard deviation over seeds.</p>"
        kind = "wide" if len(found) == 1 else "charts"
        yield f'<div class="{kind}">{"".join(found)}</div>'
    if bars:
        line = "; dashed line: the baseline" if table.reference else ""
        yield f'<h3>Task by task</h3><p class="legend">The main metric of each task{line}.</p>'
        yield f'<div class="charts">{"".join(_task(table, task, svg) for task, svg in bars.items())}</div>'


def _pictures(gallery: Gallery) -> Iterator[str]:
    if not (gallery.strips or gallery.notes):
        return
    yield "<h3>The same pictures</h3>"
    yield from (f'<p class="note">{escape(note)}</p>' for note in gallery.notes)
    for name in dict.fromkeys(strip.picture for strip in gallery.strips):
        yield f"<details open><summary>{escape(name)}</summary>"
        for strip in gallery.strips:
            if strip.picture == name:
                yield from _strip(strip)
        yield "</details>"


def _strip(strip: Strip) -> Iterator[str]:
    low, _, high = strip.scale.partition(" | ")
    steps = ", ".join(f"rgb{colour}" for colour in RAMP)
    ramp = f'<span class="ramp" style="background: linear-gradient(90deg, {steps})"></span>'
    void = f'<span class="ramp" style="width: 12px; background: rgb{VOID}"></span>not annotated'
    yield f"<h4>{escape(strip.task)}</h4>"
    if any(prediction.errors is not None for prediction in strip.predictions):
        yield f'<p class="legend">Below each prediction its error: {escape(low)} {ramp} {escape(high)}; {void}</p>'
    yield '<div class="strip">'
    yield _figure([_image(strip.image, False, "picture"), _image(strip.label, strip.exact, "label")], "picture, label")
    for p in strip.predictions:
        shown = [_image(p.colours, strip.exact, "prediction")]
        shown += [] if p.errors is None else [_image(p.errors, True, "error")]
        yield _figure(shown, p.name, p.caption)
    yield "</div>"


def _origins(table: Table) -> Iterator[str]:
    """Where each row comes from."""
    items = []
    for row in table.rows:
        for run in row.runs:
            facts = [cells.facts(row), f"seed {run.seed}" if run.seed is not None else "", run.device]
            facts += [f"{run.steps} steps"] if run.steps is not None else []
            items.append(
                f"{escape(row.name)}: <code>{escape(str(run.folder))}</code> {escape(', '.join(filter(None, facts)))}"
            )
        if row.note:
            items.append(f"{escape(row.name)}: {escape(row.note)}")
    if items:
        yield "<details><summary>Runs and remarks</summary><ul>"
        yield from (f"<li>{item}</li>" for item in items)
        yield "</ul></details>"


def _scrolling(head: str, lines: Sequence[str]) -> str:
    first = '<tr><th class="corner"></th>'
    body = "\n".join(lines)
    return f'<div class="scroll"><table><thead>{first}{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _row(row: Row, values: str, short: bool = False) -> str:
    """A line of a table; `short`: the name, and no more of what it is."""
    kind = "published" if row.source else "baseline" if row.is_baseline else ""
    tags = f'<span class="tag">published: {escape(row.source)}</span>' if row.source else ""
    tags += '<span class="tag own">baseline</span>' if row.is_baseline and not short else ""
    facts = "" if short else f"<small>{escape(row.note if row.source else cells.facts(row))}</small>"
    return f'<tr class="{kind}"><th>{escape(row.name)}{tags}{facts}</th>{values}</tr>'


def _values(row: Row, table: Table, metrics: Sequence[tuple[str, str, str]]) -> str:
    """Metrics with their change relative to the baseline; the best that was measured is bold."""
    baseline, values = table.reference, []
    for task, name, way in metrics:
        found = row.metric(task, name)
        change = relative_change(found.mean, baseline.get(task, {}).get(name, math.nan), way)
        is_changed = not (math.isnan(change) or row.is_baseline)
        below = f'<small class="{_sign(change)}">{change:+.1f} %</small>' if is_changed else ""
        best = found.n and not row.source and found.mean == _best(table, task, name, way)
        seeds = f' title="n = {found.n}"' if found.n > 1 else ""
        kind = ' class="best"' if best else ""
        values.append(f"<td{kind}{seeds}>{_spread(cells.metric(row, task, name))}{below}</td>")
    return "".join(values)


def _gain(row: Row, key: str, first: bool) -> str:
    found = getattr(row, key)
    kind = _sign(found.mean) if found.n and not row.is_baseline else ""
    return f'<td class="{kind}{" first" if first else ""}">{_spread(cells.gain(found))}</td>'


def _spread(text: str) -> str:
    mean, mark, deviation = text.partition(f" {cells.PLUS_MINUS} ")
    return escape(mean) + (f' <span class="spread">{mark.strip()} {escape(deviation)}</span>' if mark else "")


def _best(table: Table, task: str, name: str, way: str) -> float:
    """The best mean of a metric among the measured rows; NaN where there is but one."""
    values = [x.mean for row in table.measured if (x := row.metric(task, name)).n]
    return (max(values) if way == "higher" else min(values)) if len(values) > 1 else math.nan


def _first(place: int) -> str:
    return "" if place else ' class="first"'


def _sign(change: float) -> str:
    return "up" if change > 0 else "down" if change < 0 else ""


def _metric_mark(row: Row, task: str, name: str) -> charts.Mark:
    found = row.metric(task, name)
    return _mark(row, found.mean, found.deviation, cells.metric(row, task, name))


def _mark(row: Row, y: float, spread: float, shown: str) -> charts.Mark:
    return charts.Mark(row.name, row.cost("trainable").mean, y, spread, bool(row.source), shown)


def _figure(images: Sequence[str], name: str, text: str = "") -> str:
    below = f"<br>{escape(text)}" if text else ""
    return f"<figure>{''.join(images)}<figcaption><b>{escape(name)}</b>{below}</figcaption></figure>"


def _image(picture: Image.Image, exact: bool, what: str) -> str:
    """As data in the page; PNG where colours must stay what they are."""
    if picture.width > SHOWN:
        size = (SHOWN, max(1, round(SHOWN * picture.height / picture.width)))
        picture = picture.resize(size, Image.Resampling.NEAREST if exact else Image.Resampling.BILINEAR)
    stream, kind = io.BytesIO(), "png" if exact else "jpeg"
    picture.save(stream, kind.upper(), **({"optimize": True} if exact else {"quality": 88}))
    data = base64.b64encode(stream.getvalue()).decode()
    css = ' class="exact"' if exact else ""
    return f'<img{css} alt="{what}" src="data:image/{kind};base64,{data}">'


def _style() -> str:
    light, dark = (
        "; ".join(f"--{name}: {value}" for name, value in palette.items()) for palette in (charts.LIGHT, charts.DARK)
    )
    colours = f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
    return colours + files(__package__).joinpath("report.css").read_text("utf-8") + charts.STYLE


def _footer() -> str:
    lines = [
        f"{cells.DELTA_M}: mean over the tasks of the signed relative change of each task's main (first) metric; "
        f"{cells.DELTA_B}: the same, each task being the mean over the metrics that the protocol's papers print (shown "
        "where that differs). Gains are over all tasks of a table, positive where a row is better than the baseline.",
        "trainable: parameters that are trained; live: those of them that some task's output depends on; MiB: the "
        "trainable ones in float32 (2^20 bytes).",
        f"GMACs of a prediction of all tasks for one picture, {CONVENTION}.",
        "s / step: median over the steps of training, with waiting for data; peak: memory of the training process. "
        "Times and memory compare only on the same machine.",
        "One model per task: single-task runs of one configuration in one row; parameters, operations and times are "
        "summed, memory is the largest.",
        f"Made by mtrun {__version__}.",
    ]
    return f"<footer>{''.join(f'<p>{escape(line)}</p>' for line in lines)}</footer>"

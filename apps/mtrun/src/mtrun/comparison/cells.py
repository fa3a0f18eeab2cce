"""The numbers of a comparison as text, once for every output."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .rows import Row, Statistic
from .tables import Table

NONE = "-"
ARROWS = {"higher": "\u2191", "lower": "\u2193"}
PLUS_MINUS, DELTA_M, DELTA_B = "\u00b1", "\u0394m %", "\u0394b %"

# Costs, in their order: name -> (title, factor of what is shown, digits)
COSTS: Mapping[str, tuple[str, float, int]] = {
    "trainable": ("trainable M", 1e-6, 3),
    "live": ("live M", 1e-6, 3),
    "mib": ("MiB", 1, 2),
    "gmacs_published": ("GMACs published", 1, 2),
    "gmacs_full": ("GMACs full", 1, 2),
    "step_seconds": ("s / step", 1, 3),
    "host_mib": ("peak host MiB", 1, 0),
    "device_mib": ("peak device MiB", 1, 0),
}


def value(statistic: Statistic, digits: int | None = None, sign: bool = False) -> str:
    """A mean, and the deviation where there are several; so many digits behind the point."""
    if statistic.n == 0:
        return NONE
    places = _places(statistic.mean) if digits is None else digits
    mean = f"{statistic.mean:{'+' if sign else ''}.{places}f}"
    if math.isnan(statistic.deviation) or statistic.deviation == 0:
        return mean
    return f"{mean} {PLUS_MINUS} {statistic.deviation:.{places}f}"


def metric(row: Row, task: str, name: str) -> str:
    """A metric of a row; what was published keeps its digits."""
    return row.printed.get((task, name)) or value(row.metric(task, name))


def cost(row: Row, name: str) -> str:
    """A cost of a row, in the unit of its column."""
    _, factor, digits = COSTS[name]
    found = row.cost(name)
    if row.source and name == "trainable":
        digits = 2  # as they are printed
    return value(Statistic(found.mean * factor, found.deviation * factor, found.n), digits)


def gain(statistic: Statistic) -> str:
    """A Delta."""
    return value(statistic, 2, sign=True)


def shown_costs(table: Table) -> list[str]:
    """The costs that some row of a table knows."""
    return [name for name in COSTS if any(row.cost(name).n for row in table.rows)]


def seeds(row: Row) -> str:
    """How many seeds a row has."""
    return "published" if row.source else str(row.n)


def label(row: Row, table: Table) -> str:
    """The name of a row, with where it was published beside what was measured."""
    source = f" [{row.source}]" if row.source and table.measured else ""
    return f"{row.name}{source}{' (baseline)' if row.is_baseline else ''}"


def gains(table: Table) -> list[tuple[str, str]]:
    """The gains of a table that say something: title, name of the row's attribute. One where both are the same."""
    if not any(row.delta_m.n or row.delta_b.n for row in table.rows):
        return []
    same = all(
        abs(row.delta_m.mean - row.delta_b.mean) < 1e-9 for row in table.rows if row.delta_m.n and row.delta_b.n
    ) and all(bool(row.delta_m.n) == bool(row.delta_b.n) for row in table.rows)
    return [(DELTA_M, "delta_m")] if same else [(DELTA_M, "delta_m"), (DELTA_B, "delta_b")]


def main_metrics(table: Table) -> list[tuple[str, str, str]]:
    """The first metric of each task: task, name, direction."""
    return [(task, *next(iter(found.items()))) for task, found in table.metrics.items() if found]


def all_metrics(table: Table) -> list[tuple[str, str, str]]:
    """Every metric: task, name, direction."""
    return [(task, name, way) for task, found in table.metrics.items() for name, way in found.items()]


def facts(row: Row) -> str:
    """What a row is made of."""
    parts: Sequence[str] = [row.backbone, row.decoder, f"{row.init} backbone" if row.init else ""]
    return ", ".join(part for part in parts if part)


def _places(mean: float) -> int:
    size = abs(mean)
    return 2 if size >= 10 else 3 if size >= 1 else 4

"""The papers' rows: what they print follows from what they print, but for the rows that are named."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mt_core.deltas import relative_change
from mt_core.errors import ConfigError
from mt_core.protocols import PROTOCOLS
from mt_core.published import PublishedRow, PublishedTable, keys, published
from mt_core.tasks import HumanParts, Normals, Saliency, Segmentation

# Every row whose printed delta lies outside of what rounding of its printed metrics can make of it.
DOUBTFUL = {
    ("mtlora:table1", "MTL - Full Fine Tuning"): 2.44,
    ("mtlora:table1", "Polyhistor"): 1.80,
    ("mtlora:table4", "MTLoRA (r = 64)"): 0.50,
    ("talora:table1", "MTAN"): 1.27,
    ("tglora:table1", "MTL - Full Fine-Tuning"): 2.44,
    ("tglora:table1", "Polyhistor"): 1.80,
    ("vmt:table2", "Shared Relative bias"): -7.08,
    ("vmt:table2", "Shared Adapter"): -1.83,
    ("vmt:table3", "VMT-Adapter (rho = 8)"): 2.79,
    ("vmt:table3", "VMT-Adapter-Lite (m = 6)"): 0.40,
}


def rows() -> Iterator[tuple[PublishedTable, PublishedRow]]:
    for key in keys():
        table = published(key)
        yield from ((table, row) for row in table.rows)


def half(text: str) -> float:
    """Half of the last printed digit."""
    return 0.5 * 10.0 ** -len(text.partition(".")[2])


def reachable(table: PublishedTable, row: PublishedRow) -> tuple[float, float]:
    """The lowest and the highest delta that the unrounded metrics can have had."""
    assert table.baseline is not None
    low = high = 0.0
    for task, found in row.metrics.items():
        for name, text in found.items():
            other, way = table.baseline.metrics[task][name], table.directions[task][name]
            ends = [
                relative_change(float(text) + a * half(text), float(other) + b * half(other), way)
                for a in (-1, 1)
                for b in (-1, 1)
            ]
            share = len(found) * len(row.metrics)
            low, high = low + min(ends) / share, high + max(ends) / share
    return low, high


MEASURED = [(table, row) for table, row in rows() if row.metrics]


@pytest.mark.parametrize(("table", "row"), MEASURED, ids=[f"{table.key} {row.method}" for table, row in MEASURED])
def test_the_printed_delta_follows_from_the_printed_metrics(table: PublishedTable, row: PublishedRow) -> None:
    low, high = reachable(table, row)
    follows = low - half(row.delta) <= float(row.delta) <= high + half(row.delta)
    assert follows == ((table.key, row.method) not in DOUBTFUL) == (row.method not in table.doubtful)
    if not follows:
        assert table.recomputed(row) == pytest.approx(DOUBTFUL[table.key, row.method], abs=0.01)


def test_the_deltas_that_papers_claim_are_found_again() -> None:
    """To the printed digit, from rows whose digits allow it."""
    for key, method, printed in (
        ("tglora:table1", "TGLoRA (attn + mlp + others)", "+4.50"),
        ("tglora:table2", "TGLoRA (attn + mlp + others)", "+0.24"),
        ("talora:table1", "TA-LoRA", "+23.93"),
        ("talora:table2", "TA-LoRA", "+20.99"),
        ("vmt:table2", "VMT-Adapter", "3.96"),
        ("mtlora:table1", "MTLoRA+ (r = 16)", "+1.19"),
    ):
        table = published(key)
        row = next(row for row in table.rows if row.method == method)
        assert row.delta == printed
        assert f"{table.recomputed(row):.2f}" == printed.lstrip("+")


def test_every_row_is_complete() -> None:
    assert len(list(rows())) == 157
    for table, row in rows():
        assert {task: set(found) for task, found in row.metrics.items()} == {
            task: set(ways) for task, ways in table.directions.items()
        }
        assert row.delta
        assert set(table.directions) <= set(table.tasks)
        assert table.delta in ("delta_m", "delta_b")
        assert table.unit in ("million", "MiB")
        assert set(table.doubtful) <= {row.method for row in table.rows}


def test_parameters_are_those_that_are_counted() -> None:
    """docs/counts.md has the exact counts."""
    counts = {
        ("mtlora:table1", "MTLoRA (r = 64)"): 8_344_634,
        ("tglora:table2", "TGLoRA (attn + mlp + others)"): 7_532_462,
        ("vmt:table2", "VMT-Adapter"): 3_675_872,
        ("talora:table1", "TA-LoRA"): 15_620_588,
        ("mtsam:table3", "MTSAM (ToRA)"): 19_584_272,
    }
    for (key, method), count in counts.items():
        table = published(key)
        row = next(row for row in table.rows if row.method == method)
        assert table.parameters(row) == pytest.approx(count, rel=2e-3)
    assert published("talora:table5").parameters(published("talora:table5").rows[0]) is None


def test_digits_stay_as_they_are_printed() -> None:
    table = {row.method: row for row in published("mtlora:table1").rows}
    assert table["MTLoRA (r = 64)"].metrics["semseg"]["miou"] == "67.9"
    assert table["MTLoRA+ (r = 16)"].metrics["saliency"]["max_miou"] == "64.323"
    assert {row.gmacs for row in published("tglora:table1").rows if row.method.startswith("TGLoRA")} == {"49.95"}


def test_metrics_have_the_names_and_directions_of_the_protocol() -> None:
    for key in keys():
        table = published(key)
        rules = PROTOCOLS.get(table.protocol)
        if rules is None or table.dataset != "pascal":
            continue
        for task in (
            Segmentation("semseg", 21),
            HumanParts("human_parts", 7),
            Saliency("saliency"),
            Normals("normals"),
        ):
            metrics = rules.metrics(task)
            for name, way in table.directions.get(task.name, {}).items():
                assert (way == "higher") == metrics[name].higher_is_better


@pytest.mark.parametrize("key", ["mtlora:tabel1", "mtlora", "", "nobody:table9", "mtlora:paper"])
def test_an_unknown_table_is_refused_with_what_there_is(key: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown table .* of a paper; .*there are mtlora:table1, ") as caught:
        published(key)
    if key == "mtlora:tabel1":
        assert "did you mean 'mtlora:table1'?" in str(caught.value)

"""The page in docs/: the runs in a table, beside what the papers say; every sentence about a number is computed."""

from __future__ import annotations

import json
import math
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from textwrap import fill
from typing import Any

from mt_core.files import write_bytes
from mt_core.published import published
from mtrun.comparison import Comparison, cells, charts, compare, report
from mtrun.comparison.rows import Row, Statistic
from mtrun.comparison.tables import Table
from mtrun.runs import read_result

from .running import cpu_seconds
from .settings import BATCH, METHODS, SIZE, TASKS, Settings

CLEAR = 2.0  # pooled standard deviations between two means
HOLDS, UNDECIDED = "holds", "not decided"


@dataclass(frozen=True)
class Claim:
    """Of two rows of a paper's table, the first has the higher overall gain.

    Attributes:
        better, worse: keys of METHODS.
        table: of `mt_core.published`.
        rows: the names of the two in it.
    """

    better: str
    worse: str
    table: str
    rows: tuple[str, str]

    @property
    def printed(self) -> float:
        """By how many points."""
        gains = {row.method: float(row.delta) for row in published(self.table).rows}
        return gains[self.rows[0]] - gains[self.rows[1]]


FULL, SINGLE, DECODERS = "MTL - Full Fine Tuning", "Single Task", "MTL - Tuning Decoders Only"
CLAIMS = (
    Claim("full", "single", "mtlora:table1", (FULL, SINGLE)),
    Claim("single", "frozen", "mtlora:table1", (SINGLE, DECODERS)),
    Claim("lora", "frozen", "mtlora:table1", ("LoRA", DECODERS)),
    Claim("mtlora", "single", "mtlora:table1", ("MTLoRA (r = 64)", SINGLE)),
    Claim("mtlora", "full", "mtlora:table1", ("MTLoRA (r = 64)", FULL)),
    Claim("mtlora", "lora", "mtlora:table1", ("MTLoRA (r = 64)", "LoRA")),
    Claim("mtlora", "mtlora_plus", "mtlora:table1", ("MTLoRA (r = 64)", "MTLoRA+ (r = 16)")),
    Claim("tglora", "mtlora", "tglora:table1", ("TGLoRA (attn + mlp + others)", "MTLoRA")),
    Claim("tglora", "full", "tglora:table1", ("TGLoRA (attn + mlp + others)", "MTL - Full Fine-Tuning")),
    Claim("vmt", "full", "vmt:table2", ("VMT-Adapter", "Multi-task Full Fine-tuning")),
    Claim("vmt", "lora", "vmt:table2", ("VMT-Adapter", "Shared LoRA")),
    Claim("vmt", "vmt_lite", "vmt:table2", ("VMT-Adapter", "VMT-Adapter-Lite")),
    Claim("vmt_lite", "frozen", "vmt:table2", ("VMT-Adapter-Lite", "Fine-tuning Decoders")),
    Claim("lora_per_task", "lora", "talora:table1", ("LoRA-STL (r = 16)", "LoRA-HPS (r = 32)")),
    Claim("tora", "lora_per_task", "talora:table1", ("TA-LoRA", "LoRA-STL (r = 16)")),
    Claim("tora", "full", "mtsam:table1", ("MTSAM (ToRA)", "Full fine-tuning")),
)


def write_page(settings: Settings, folder: Path, page: Path, command: str) -> None:
    """Compare the runs of `folder`, and write the page and, beside it, its drawing.

    Raises:
        CheckpointError: if a run is not done.
    """
    runs = [(key, run.folder) for key, run in settings.runs(folder)]
    first: dict[str, str] = {}
    for key, where in runs:
        first.setdefault(str(where), METHODS[key].label)
    comparison = compare(
        [where for _, where in runs],
        folder / "report",
        baseline=[where for key, where in runs if METHODS[key].single],
        weights="final",
        pictures=1,
        names=first,
        title="Leaderboard",
        notes=[how(settings)],
    )
    table, rows = _by_method(comparison, runs)
    drawing = report.pareto_charts(table) if table.baseline else []
    if drawing:
        write_bytes(page.with_suffix(".svg"), charts.alone(drawing[0]).encode())
    spent = sum(cpu_seconds(where) for _, where in runs)
    spent += json.loads((folder / "pretraining.json").read_text())["cpu_seconds"]
    parts = [
        "# Leaderboard",
        "Every method of the project and what the papers compare it with, trained alike. Written by",
        f"```\n{command}\n```",
        wrapped(how(settings)),
        options(settings),
        wrapped(machine(runs[0][1], spent)),
        "## Results",
        results(table, rows),
        *([f"![gain against trainable parameters]({page.with_suffix('.svg').name})"] if drawing else []),
        wrapped(findings(table, rows)),
        "## Does the papers' ordering hold here?",
        *ordering(rows, settings.seeds),
        "## What this does not show",
        wrapped(LIMITS),
    ]
    write_bytes(page, ("\n\n".join(parts) + "\n").encode())


LIMITS = (
    f"This is one small backbone, pretrained briefly, on generated pictures of {SIZE[0]} x {SIZE[1]} pixels, with few "
    "steps and learning rates that no method was tuned for. The papers fine-tune ImageNet's Swin or SAM for tens to "
    "hundreds of epochs. Ranks are not the papers', and the methods do not train equally many parameters: the table "
    "says how many. A method that comes out ahead here need not there, and the other way round: an ordering that holds "
    "here supports no paper's numbers, and one that is reversed refutes none."
)


def wrapped(text: str) -> str:
    """A paragraph."""
    return fill(text, 120, break_long_words=False, break_on_hyphens=False)


def how(settings: Settings) -> str:
    """What every run has in common."""
    usual = Settings()
    short = "" if settings.steps >= usual.steps else f" (shortened: the script's usual budget is {usual.steps})"
    return (
        f"One backbone, `swin_nano`, trained whole for {settings.pretraining_steps} steps on another task mix, "
        "class-agnostic boundaries and denoising, and on other pictures. From it, every run takes "
        f"{settings.steps} steps{short} of {BATCH} pictures of {SIZE[0]} x {SIZE[1]} pixels of `rooms` "
        f"({settings.train} to train on, {settings.val} to evaluate), tasks {', '.join(TASKS)}, with the same `hrnet` "
        f"decoders, AdamW, a cosine schedule, and one learning rate for all methods, {settings.lr:g}, but where the "
        f"backbone is trained whole: {settings.lr_whole:g}, because full fine-tuning was not stable at 0.002 in a "
        "first trial. Neither was searched for, and no method was tuned. What is new in the model and the order of the "
        f"pictures differ from seed to seed (seeds: {settings.seeds}); the backbone is the same. Metrics are those of "
        "protocol `astmt`, measured once, after the last step. As in the papers, gains are over single-task full "
        "fine-tuning: a model for each task, each with the steps of a run of its own."
    )


def options(settings: Settings) -> str:
    """The options of each method that are no defaults."""
    lines = [f"| {_name(key)} | `{' '.join(METHODS[key].words)}` |" for key in settings.methods]
    note = "ToRA's factors start smaller than the paper's, because so short a run is no place for its warm-up."
    head = "| method | options |\n|---|---|\n"
    return head + "\n".join(lines) + (f"\n\n{note}" if "tora" in settings.methods else "")


def machine(folder: Path, spent: float) -> str:
    """Where and when."""
    found = read_result(folder)["environment"]
    return (
        f"One thread per run: {spent / 60:.0f} minutes of processor in all, on {processor()}, torch {found['torch']}, "
        f"Python {found['python']}; {date.today():%d %B %Y}."
    )


def processor() -> str:
    """The processor's name, where the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def results(table: Table, rows: Mapping[str, Row]) -> str:
    """A line per method, the highest overall gain first."""
    metrics = cells.main_metrics(table)
    head = ["", *(f"{task} {name} {cells.ARROWS[way]}" for task, name, way in metrics)]
    head += [cells.DELTA_M, "in the encoder", "in all", "GMACs"]
    lines = [head, [":---", *["---:"] * (len(head) - 1)]]
    for row in sorted(rows.values(), key=lambda row: -row.delta_m.mean):
        trainable = row.cost("trainable").mean
        values = [cells.metric(row, task, name) for task, name, _ in metrics]
        values += [cells.gain(row.delta_m), f"{trainable - decoders(row):,.0f}", f"{trainable:,.0f}"]
        lines.append([cells.label(row, table), *values, cells.cost(row, "gmacs_full")])
    legend = (
        f"{cells.PLUS_MINUS}: standard deviation over the seeds (n - 1). {cells.DELTA_M}: mean over the tasks of the "
        "signed relative change to the baseline. The next two columns count trained parameters, of one model or of all "
        "that the row needs; GMACs are those of a prediction of all tasks, every product counted."
    )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{wrapped(legend)}"


def decoders(row: Row) -> float:
    """Parameters of its decoders."""
    found = 0
    for run in row.members[0].runs:
        groups: Mapping[str, Any] = read_result(run.folder)["parameters"]["groups"]
        found += sum(count["trainable"] for name, count in groups.items() if name.startswith("decoder."))
    return found


def findings(table: Table, rows: Mapping[str, Row]) -> str:
    """What the table says, and no more."""
    ranked = sorted((row for row in rows.values() if row.delta_m.n), key=lambda row: -row.delta_m.mean)
    text = overall(ranked) if ranked else ""
    parts = []
    for task, name, way in cells.main_metrics(table):
        top = (max if way == "higher" else min)(rows.values(), key=lambda row: row.metric(task, name).mean)
        parts.append(f"{task}: {top.name} ({cells.metric(top, task, name)})")
    return f"{text}The best mean of each task: {'; '.join(parts)}."


def overall(ranked: Sequence[Row]) -> str:
    """Of rows with gains, the highest first."""
    best, *others = ranked
    close = [row.name for row in others if not is_clear(best.delta_m, row.delta_m)]
    text = f"The highest mean gain is that of {best.name} ({cells.gain(best.delta_m)} %)"
    text += f"; not clearly below it: {'; '.join(close)}. " if close else ", clearly above all others. "
    above = [row.name for row in ranked if not row.is_baseline and row.delta_m.mean > 0]
    return f"{text}Above the baseline on average: {'; '.join(above) if above else 'none'}. "


def ordering(rows: Mapping[str, Row], seeds: int) -> Iterator[str]:
    """The papers' claims, each beside what was measured."""
    lines, verdicts, along, full = [], [], 0, 0
    for claim in CLAIMS:
        if not {claim.better, claim.worse} <= rows.keys():
            continue
        ours, theirs = rows[claim.better].delta_m, rows[claim.worse].delta_m
        found = verdict(ours, theirs)
        verdicts.append(found)
        full += found == HOLDS and any(METHODS[key].whole for key in (claim.better, claim.worse))
        along += found == UNDECIDED and ours.mean > theirs.mean
        symbol = {"delta_m": cells.DELTA_M, "delta_b": cells.DELTA_B}[published(claim.table).delta].split()[0]
        lines.append(
            f"| {_name(claim.better)} > {_name(claim.worse)} | {symbol} {claim.printed:+.2f} | {claim.table} | "
            f"{ours.mean - theirs.mean:+.2f} | {_number(spread(ours, theirs))} | {found} |"
        )
    counts = Counter(verdicts)
    chance = ", which two equal methods with normal deviations are about once in 14 times" if seeds == 3 else ""
    yield wrapped(
        f"Of {len(verdicts)} orderings that the papers print, {counts[HOLDS]} hold here, {counts['reversed']} are "
        f"reversed, and {counts[UNDECIDED]} are not decided, {along} of which point the papers' way. One is called "
        f"decided where the two means are more "
        f"than {CLEAR:g} pooled standard deviations apart{chance}. Numbers are differences of the overall gains, in "
        f"points: of {cells.DELTA_M.split()[0]} here, and of what the paper prints there."
    )
    if warning := short_of_steps(rows):
        yield wrapped(f"{warning} {full} of the {counts[HOLDS]} that hold are about it.")
    if lines:
        head = "| | in the paper | table | here | pooled sd | |\n|---|---:|---|---:|---:|---|\n"
        yield head + "\n".join(lines)


def short_of_steps(rows: Mapping[str, Row]) -> str:
    """What must be said where decoders alone do clearly better than training everything."""
    if not {"frozen", "single"} <= rows.keys() or verdict(rows["frozen"].delta_m, rows["single"].delta_m) != HOLDS:
        return ""
    return (
        "Decoders alone beat full fine-tuning here, as in no paper: at its lower learning rate, full fine-tuning is "
        "most likely far from done after so few steps. So all gains over it, and every ordering about it, tell of the "
        "budget before they tell of a method."
    )


def verdict(better: Statistic, worse: Statistic) -> str:
    """Whether the first mean is above the second by more than seeds explain."""
    if not is_clear(better, worse):
        return UNDECIDED
    return HOLDS if better.mean > worse.mean else "reversed"


def is_clear(a: Statistic, b: Statistic) -> bool:
    """False where a deviation is not known."""
    return abs(a.mean - b.mean) > CLEAR * spread(a, b)


def spread(a: Statistic, b: Statistic) -> float:
    """The pooled standard deviation of two rows of equally many seeds; NaN of one seed."""
    return math.sqrt((a.deviation**2 + b.deviation**2) / 2)


def _number(value: float) -> str:
    return cells.NONE if math.isnan(value) else f"{value:.2f}"


def _name(key: str) -> str:
    return f"{METHODS[key].label}{', one model per task' if METHODS[key].single else ''}"


def _by_method(comparison: Comparison, runs: Sequence[tuple[str, Path]]) -> tuple[Table, dict[str, Row]]:
    """The one table, and its rows by the key of the method."""
    (table,) = comparison.tables
    keys = {where: key for key, where in runs}
    return table, {keys[row.runs[0].folder]: row for row in table.rows}

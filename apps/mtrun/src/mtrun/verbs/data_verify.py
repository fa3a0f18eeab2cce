"""`mtrun data verify`."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from mt_core.dataset import Dataset, choose
from mt_core.errors import ConfigError, DataError
from mt_core.files import write_bytes, write_json
from mt_core.task import Task

from .. import terminal
from ..data_config import VerifyConfig
from ..inspection import Problem
from ..job import chosen
from ..json_values import plain_numbers
from ..results import Result
from ..verification import Verified, Watch
from ..verification import verify as look_at

log = logging.getLogger(__name__)

SHOWN = 20  # problems on the terminal; all are in the report
JSON, TEXT = "report.json", "report.txt"


def verify(config: VerifyConfig, plain: Mapping[str, Any]) -> Result:
    """Look at every file of a data set; the result's exit code is 3 if anything is wrong."""
    dataset: Dataset = chosen("datasets", config.dataset)
    tasks = choose(dataset.tasks(), config.tasks)
    folder = None if config.dry_run else _folder(config)
    started = time.perf_counter()
    with _watching() as watch:
        found = look_at(dataset, tasks, config.splits, config.workers, config.pictures, watch)
    seconds = time.perf_counter() - started
    problems = [problem for verified in found for problem in verified.problems]
    errors = sum(problem.is_error for problem in problems)
    looked_at = sum(verified.looked_at for verified in found)
    report = {
        "dataset": dict(plain["dataset"]),
        "ok": errors == 0,
        "errors": errors,
        "warnings": len(problems) - errors,
        "pictures": config.pictures,
        "notes": _notes(dataset, tasks),
        "splits": {verified.split: verified.to_json() for verified in found},
        "problems": [problem.to_json() for problem in problems],
        "seconds": seconds,
        "pictures_per_second": looked_at / max(seconds, 1e-9),
    }
    value, text = plain_numbers(report), _text(report, found, problems)
    if folder is not None:
        _write(folder, value, text)
    where = None if folder is None else str(folder / JSON)

    def show(console: Any) -> None:
        lines = _text(report, found, problems[:SHOWN]).splitlines()
        if len(problems) > SHOWN:
            lines.append(f"... and {len(problems) - SHOWN} more")
        lines.append("dry run: nothing was written" if folder is None else f"the report is in {folder}: {JSON}, {TEXT}")
        for line in lines:
            console.print(line, soft_wrap=True, highlight=False, markup=False)

    return Result({**value, "report": where}, show, exit_code=3 if errors else 0)


def _notes(dataset: Dataset, tasks: Sequence[Task]) -> list[str]:
    """What the data set says of its annotations; nothing if it cannot be opened, which is told as a problem."""
    try:
        return dataset.notes(tasks)
    except DataError:
        return []


def _folder(config: VerifyConfig) -> Path:
    """The folder for the report, made beforehand: nobody wants to wait for hours and then read that it cannot be."""
    usual = Path("runs") / f"verify-{config.dataset['name']}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = usual if config.output is None else Path(config.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / TEXT, b"not finished yet\n")
    except OSError as error:
        raise ConfigError(
            f"output={folder}: no report can be written there ({error.strerror}); choose another"
        ) from error
    return folder


def _write(folder: Path, value: Any, text: str) -> None:
    try:
        write_json(folder / JSON, value)
        write_bytes(folder / TEXT, text.encode())
    except OSError as error:
        raise ConfigError(f"output={folder}: the report cannot be written ({error.strerror}); make room") from error


@contextmanager
def _watching() -> Iterator[Watch]:
    """A bar on a terminal, a line now and then elsewhere."""
    if not terminal.stderr().is_terminal:
        yield _log_now_and_then
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn())
    more = (TextColumn("{task.fields[shown]}"), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, *more, console=terminal.stderr()) as bar:
        rows: dict[str, Any] = {}

        def watch(split: str, number: int, count: int, problems: int) -> None:
            if split not in rows:
                rows[split] = bar.add_task(f"verifying {split}", total=count, shown="")
            bar.update(rows[split], completed=number, shown=f"{problems} problems")

        yield watch


def _log_now_and_then(split: str, number: int, count: int, problems: int) -> None:
    if number == count or (number % max(1, count // 10) == 0 and count >= 100):
        log.info("%s: %d of %d pictures, %d problems", split, number, count, problems)


def _text(report: Mapping[str, Any], found: Sequence[Verified], problems: Sequence[Problem]) -> str:
    """The report for people."""
    lines = [
        f"data set {report['dataset']['name']}",
        *(f"  {k}: {v}" for k, v in report["dataset"].items() if k != "name"),
    ]
    for verified in found:
        lines += ["", *_lines_of(verified)]
    lines += [f"note: {note}" for note in report["notes"]]
    verdict = "nothing is wrong" if report["ok"] else f"{report['errors']} errors"
    lines += ["", f"{verdict}, {report['warnings']} warnings"]
    for problem in problems:
        lines.append(f"{'error' if problem.is_error else 'warning'} ({problem.split}): {problem.message}")
    return "\n".join(lines) + "\n"


def _lines_of(verified: Verified) -> Iterator[str]:
    values = verified.to_json()
    sizes = ", ".join(f"{size} ({count})" for size, count in list(values["sizes"].items())[:4])
    yield (
        f"split {verified.split}: {values['listed']} pictures, {values['looked_at']} looked at, {values['unusable']} "
        f"unusable; {sizes or 'none could be read'}"
    )
    for name, task in values["tasks"].items():
        parts = [f"{task['pictures']} annotated"]
        if "void" in task:
            parts.append(f"{task['void']:.1%} void, at most {task['emptiest']['void']:.1%} ({task['emptiest']['id']})")
        if "range" in task:
            parts.append("from {min:.4g} to {max:.4g}, mean {mean:.4g}".format(**task["range"]))
        yield f"  {name}: {'; '.join(parts)}"
        if "classes" in task:
            shares = sorted(task["classes"].items(), key=lambda entry: -entry[1])
            absent = [label for label, share in shares if not share]
            yield "    " + ", ".join(f"{label} {share:.1%}" for label, share in shares[:8] if share)
            if absent and verified.looked_at:
                yield f"    nowhere: {', '.join(absent[:12])}{', ...' if len(absent) > 12 else ''}"

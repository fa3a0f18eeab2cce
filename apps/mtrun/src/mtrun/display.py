"""What a training run shows while it runs, and the tables of results."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Group
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from . import terminal
from .listeners import EvaluationReport, Listener, Session, StepReport

log = logging.getLogger(__name__)

RANDOM = (
    "THE BACKBONE IS RANDOM: it has no pretrained weights, and frozen noise is all that the adapter can build on. "
    "Good for trying things out, not for results. Give backbone.pretrained=true or backbone.checkpoint=FILE."
)
ARROWS = {"higher": "↑", "lower": "↓"}


def warn_of_random_backbone() -> None:
    """Say it so that nobody can miss it."""
    if terminal.stderr().is_terminal:
        terminal.stderr().print(Panel(RANDOM, title="WARNING", style="bold red"))
    else:
        log.warning(RANDOM)


class Lines(Listener):
    """A line per logged step and per evaluation, for logs and where there is no terminal."""

    def on_start(self, session: Session) -> None:
        self.session = session
        if session.built.random:
            warn_of_random_backbone()
        spec, device = session.job.spec, next(session.built.model.parameters()).device
        log.info(
            "%s on %s, tasks %s, pictures of %d x %d, %d steps on %s",
            spec.adapter.name, spec.backbone.name, ", ".join(session.built.model.tasks), *spec.image_size,
            session.steps, device,
        )  # fmt: skip

    def on_step(self, report: StepReport) -> None:
        if report.logged:
            left = (self.session.steps - report.step) * report.seconds / report.step
            log.info(
                "step %d/%d  %s  lr %.2e  %.1f images/s  %s left",
                report.step, self.session.steps, _losses(report.result.losses), report.rate,
                report.images_per_second, _clock(left),
            )  # fmt: skip

    def on_evaluation(self, report: EvaluationReport, state: Mapping[str, Tensor]) -> None:
        found = report.evaluation
        # the first metric of a task is the one that papers print
        first = "  ".join(f"{task} {name} {m[name]:.4g}" for task, m in found.metrics.items() for name in list(m)[:1])
        what = f"after step {report.step}" if report.step else "before training"
        log.info("%s: loss %.4g%s  %s", what, report.loss, " (best so far)" if report.best else "", first)

    def close(self) -> None:
        """Take away what is shown live."""


class Bar(Lines):
    """A live bar with the loss of each task, pictures per second and the time left; evaluations stay as lines."""

    def on_start(self, session: Session) -> None:
        super().on_start(session)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[shown]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=terminal.stderr(),
        )
        self.row = self.bar.add_task("training", total=session.steps, shown="")
        self.bar.start()

    def on_step(self, report: StepReport) -> None:
        shown = f"{_losses(report.result.losses)}  {report.images_per_second:.1f} images/s"
        self.bar.update(self.row, completed=report.step, shown=shown)

    def close(self) -> None:
        if hasattr(self, "bar"):
            self.bar.stop()


@contextmanager
def showing() -> Iterator[Lines]:
    """A live bar on a terminal, plain lines elsewhere."""
    display = Bar() if terminal.stderr().is_terminal else Lines()
    try:
        yield display
    finally:
        display.close()


def training_table(result: Mapping[str, Any]) -> Group:
    """Every metric before and after training, and whether it got better."""
    table = Table()
    for column in ("task", "metric", "before", "after", "better"):
        table.add_column(column, justify="left" if column in ("task", "metric") else "right")
    before = result["metrics"]["before"]
    for task, metrics in result["metrics"]["final"].items():
        for name, after in metrics.items():
            way = result["directions"][task][name]
            old = math.nan if before is None else before[task][name]
            table.add_row(task, f"{name} {ARROWS[way]}", number(old), number(after), verdict(old, after, way))
    title = f"protocol {result['protocol']}, data set {result['dataset']}, step {result['steps']}"
    return Group(title, table)


def evaluation_table(result: Mapping[str, Any]) -> Group:
    """Every metric of an evaluation."""
    table = Table()
    for column in ("task", "metric", "value"):
        table.add_column(column, justify="right" if column == "value" else "left")
    for task, metrics in result["metrics"].items():
        for name, value in metrics.items():
            table.add_row(task, f"{name} {ARROWS[result['directions'][task][name]]}", number(value))
    title = f"protocol {result['protocol']}, data set {result['dataset']}, {result['images']} pictures"
    return Group(title, table)


def parameters_table(result: Mapping[str, Any]) -> Group:
    """The parameters by group, and the cost of a prediction."""
    gmacs, size = result["gmacs"], " x ".join(map(str, result["gmacs"]["image_size"]))
    cost = ", ".join(f"{gmacs[name]} {name} (encoder {value})" for name, value in result["encoder_gmacs"].items())
    table = Table("parameters")
    table.add_column("trainable", justify="right")
    table.add_column("live", justify="right")
    for name, count in result["groups"].items():
        table.add_row(name, f"{count['trainable']:,}", f"{count['live']:,}")
    table.add_section()
    table.add_row("trained", f"{result['trainable']:,}", f"{result['live']:,}")
    table.add_row("all, frozen too", f"{result['total']:,}", "")
    title = f"{result['adapter']} on {result['backbone']} with {result['decoder']}: {', '.join(result['tasks'])}"
    size_line = f"{result['mib']} MiB of trained weights in fp32; GMACs at {size}: {cost}"
    return Group(title, table, size_line, f"conventions: {result['convention']}")


def number(value: float) -> str:
    """Four digits; a dash for what was not measured."""
    return "-" if math.isnan(value) else f"{value:.4g}"


def verdict(before: float, after: float, way: str) -> str:
    """Whether a metric got better."""
    if math.isnan(before) or math.isnan(after):
        return "-"
    gain = after - before if way == "higher" else before - after
    return "[green]yes[/green]" if gain > 0 else "[red]no[/red]"


def _losses(losses: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.3g}" for name, value in losses.items())


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

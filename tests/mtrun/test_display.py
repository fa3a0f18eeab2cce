"""What a person sees: the live bar, the lines, the tables, the panels; and what a signal does meanwhile."""

from __future__ import annotations

import io
import logging
import os
import signal
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from mtrun import signals, terminal
from mtrun.display import number, training_table, verdict, warn_of_random_backbone
from mtrun.evaluation import Picture
from mtrun.json_values import plain_numbers
from mtrun.panels import WIDTH, draw

from .conftest import TINY, Mtrun
from .toy import Toy


def rendered(what: object) -> str:
    stream = io.StringIO()
    Console(file=stream, width=120).print(what)
    return stream.getvalue()


def test_on_a_terminal_training_shows_a_live_bar(mtrun: Mtrun, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=200)
    monkeypatch.setattr(terminal, "console", lambda _: console)
    outcome = mtrun(*TINY, "trainer.max_steps=2", "run_dir=run")
    assert outcome.code == 0
    text = stream.getvalue()
    for word in ("training", "2/2", "semseg", "images/s", "WARNING", "THE BACKBONE IS RANDOM"):
        assert word in text


def test_a_random_backbone_is_said_in_capitals(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_random_backbone()
    assert "THE BACKBONE IS RANDOM" in caplog.text


def test_the_table_says_which_metrics_got_better() -> None:
    result = {
        "protocol": "astmt", "dataset": "toy", "steps": 3,
        "metrics": {"before": {"depth": {"rmse": 2.0, "delta1": 5}}, "final": {"depth": {"rmse": 1.0, "delta1": 4}}},
        "directions": {"depth": {"rmse": "lower", "delta1": "higher"}},
    }  # fmt: skip
    rows = [line for line in rendered(training_table(result)).splitlines() if "depth" in line]
    assert "yes" in rows[0]
    assert "no" in rows[1]
    result["metrics"]["before"] = None  # type: ignore[index]
    assert "-" in rendered(training_table(result))


def test_what_was_not_measured_is_a_dash_and_null() -> None:
    nan = float("nan")
    assert number(nan) == verdict(nan, 1.0, "higher") == verdict(1.0, nan, "lower") == "-"
    assert plain_numbers({"a": nan, "b": [float("inf"), 1.0], "c": Path("x"), "d": (1, True)}) == {
        "a": None, "b": [None, 1.0], "c": "x", "d": [1, True],
    }  # fmt: skip


def test_a_panel_has_a_cell_for_the_picture_and_two_for_every_task() -> None:
    tasks = Toy().tasks()
    samples = [Toy().split("val", list(tasks.values()))[i] for i in range(2)]
    pictures = [
        Picture(
            sample.id, sample.image.as_subclass(torch.Tensor) / 255,
            {name: label.as_subclass(torch.Tensor) for name, label in sample.labels.items()},
            {name: label.as_subclass(torch.Tensor) for name, label in sample.labels.items()},
        )
        for sample in samples
    ]  # fmt: skip
    sheet = draw(pictures, tasks)
    assert isinstance(sheet, Image.Image)
    assert sheet.width >= 9 * WIDTH
    assert sheet.height > 2 * WIDTH * 40 / 48
    # a prediction that equals its label looks the same in both cells
    step = WIDTH + 4
    label, prediction = (sheet.crop((4 + i * step, 22, 4 + i * step + WIDTH, 22 + 100)) for i in (1, 2))
    assert label.tobytes() == prediction.tobytes()
    assert np.unique(np.array(label).reshape(-1, 3), axis=0).shape[0] > 1


def test_warnings_and_logs_become_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.logging_to_stderr():
        logging.getLogger("anything").info("some [words] " + "that are long " * 20)
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.warn("a plugin is left out", stacklevel=1)
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first.startswith("some [words] that are long")
    assert second == "warning: a plugin is left out"


def test_logging_is_left_as_it_was(mtrun: Mtrun) -> None:
    root = logging.getLogger()
    before = list(root.handlers), root.level, warnings.showwarning
    assert mtrun(*TINY, "--info", "all").code == 0
    assert (list(root.handlers), root.level, warnings.showwarning) == before


def test_sigterm_becomes_an_exception() -> None:
    with pytest.raises(signals.Terminated), signals.raising():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signals.Terminated.exit_code == 143


def interrupted(done: list[str], times: int) -> None:
    """Is interrupted so many times in a shield before it is done."""
    with signals.raising(), signals.shielded(), signals.shielded():
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
        done.append("done")


@pytest.mark.parametrize(("times", "left"), [(1, ["done"]), (2, [])])
def test_a_shield_lets_the_block_finish_unless_told_twice(times: int, left: list[str]) -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted(done, times)
    assert done == left


def interrupted_in_an_opening(done: list[str]) -> None:
    """Is interrupted where a shield is left open, and terminated where it is up again."""
    with signals.raising(), signals.shielded():
        try:
            with signals.unshielded():
                os.kill(os.getpid(), signal.SIGINT)
                done.append("not interrupted")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("put in order")


def test_inside_a_shield_a_block_can_be_left_open_to_signals() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted_in_an_opening(done)
    assert done == ["put in order"]


def test_signals_are_left_alone_outside_of_the_main_thread() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def run() -> None:
        with signals.raising():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]

"""The folder that a run leaves, file by file.

Everything but the logs appears whole or not at all:

    config.yaml          the composed configuration
    metrics.jsonl        a line per logged step and per evaluation
    tensorboard/         the same as events
    panels/step-*.png    pictures with labels and predictions
    artefacts/           best-STEP and last-STEP, each an artefact of mt-core
    state/               step-STEP, each a state that the run can go on from
    result.json          what came out; written when training is done
    plan.json, plan.png  what the adapter found in the data, where it looked
    log.txt              what was logged
    lock                 held by the process that writes here
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from mt_core import artefact
from mt_core.files import atomic_path, write_bytes, write_json

from . import panels
from .json_values import plain_numbers
from .listeners import EvaluationReport, Listener, RunInfo, Session, StepReport
from .progress import Progress
from .resuming import state_of
from .runs import ARTEFACTS, CONFIG, LOG, METRICS, RESULT, STATE
from .state import States
from .writing import writing

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)


class RunFolder(Listener):
    """Writes a run into a folder.

    Args:
        folder: made by `claim`.
        config: the composed configuration, plain.
        states: those of the run.

    Every method raises CheckpointError if the folder cannot be written.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], states: States) -> None:
        self.info = RunInfo(folder, config)
        self.folder, self.states = folder, states
        self.first = 1  # the step that is recorded next
        self.artefacts = {"best": 0, "last": 0}  # the steps of the newest
        self.bests: dict[int, int] = {}  # of every saved state, the step of the best artefact by then
        with writing(folder):
            write_bytes(folder / CONFIG, OmegaConf.to_yaml(OmegaConf.create(dict(config))).encode())

    def rewind(self, progress: Progress) -> None:
        """Take away what was recorded beyond where the run goes on from."""
        self.first = progress.step + 1
        with writing(self.folder):
            cut(self.folder / METRICS, progress)
            for picture in (self.folder / "panels").glob("step-*.png"):
                if _number(picture.stem) > progress.evaluated:
                    picture.unlink()
            (self.folder / RESULT).unlink(missing_ok=True)
            lasts = [_number(path.name) for path in (self.folder / ARTEFACTS).glob("last-*")]
            self.artefacts["last"] = max((step for step in lasts if step <= progress.step), default=0)
            if progress.best_step and not self._is_whole("best", progress.best_step):
                log.warning("the best artefact, of step %d, is gone; the best is looked for anew", progress.best_step)
                progress.forget_best()
            self.artefacts["best"] = self.bests[progress.step] = progress.best_step
            self._clear()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Within, log records and events go into the folder."""
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        with writing(self.folder):
            purged = None if self.first == 1 else self.first
            self.events: SummaryWriter = SummaryWriter(str(self.folder / "tensorboard"), purge_step=purged)
            handler = logging.FileHandler(self.folder / LOG)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.getLogger().addHandler(handler)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(handler)
            with writing(self.folder):
                handler.close()
                self.events.close()

    def on_start(self, session: Session) -> None:
        self.session = session

    def on_step(self, report: StepReport) -> None:
        if report.logged:
            values = {**report.result.losses, "total": report.loss}
            rates = {"lr": report.rate, "gradient_norm": report.result.norm}
            speed = {"images_per_second": report.images_per_second, "seconds": report.seconds}
            self._record("train", report.step, {"loss": values, **rates, **speed})

    def on_evaluation(self, report: EvaluationReport, state: Mapping[str, Tensor]) -> None:
        found = report.evaluation
        losses = {**found.losses, "total": report.loss}
        self._record("val", report.step, {"loss": losses, "metrics": found.metrics, "best": report.best})
        if found.pictures:
            picture = panels.draw(found.pictures, self.session.built.model.tasks)
            with writing(self.folder), atomic_path(self.folder / "panels" / f"step-{report.step:06d}.png") as path:
                picture.save(path)
        if report.step:
            self._save("last", report.step, state)
            if report.best:
                self._save("best", report.step, state)

    def on_save(self, progress: Progress, snapshot: Mapping[str, Tensor]) -> None:
        with writing(self.folder):
            self.states.save(state_of(self.session, progress, snapshot))
            self.bests[progress.step] = progress.best_step
            self._clear()

    def on_stop(self, step: int, state: Mapping[str, Tensor]) -> None:
        if step:
            self._save("last", step, state)
        where = self.folder / (ARTEFACTS if step else STATE)
        log.warning("stopped after step %d, which is saved in %s; mtrun resume=%s goes on", step, where, self.folder)

    def on_end(self, result: dict[str, Any]) -> None:
        with writing(self.folder):
            self.bests.clear()  # a run that is done has one best artefact
            self._clear()
            write_json(self.folder / RESULT, plain_numbers(result))

    def _record(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        line = json.dumps(plain_numbers({"event": event, "step": step, **values}), allow_nan=False)
        with writing(self.folder):
            with (self.folder / METRICS).open("a") as file:
                file.write(line + "\n")
            for name, value in flatten(values):
                self.events.add_scalar(f"{event}/{name}", value, step)

    def _save(self, kind: str, step: int, state: Mapping[str, Tensor]) -> None:
        """Write an artefact into a new folder, and remove those that are of no use any more when it is whole."""
        if not self._is_whole(kind, step):
            target = self._place(kind, step)
            try:
                with writing(self.folder):
                    artefact.save(target, self.session.built, state)
            except BaseException:
                shutil.rmtree(target, ignore_errors=True)
                raise
        self.artefacts[kind] = step
        with writing(self.folder):
            self._clear()

    def _clear(self) -> None:
        """Remove artefacts that are unfinished, or neither the newest of their kind nor the best of a saved state."""
        bests = {self.artefacts["best"], *(self.bests.get(step, 0) for step in self.states.saved)}
        wanted = {self._place("last", self.artefacts["last"]), *(self._place("best", step) for step in bests)}
        for folder in (self.folder / ARTEFACTS).glob("*-*"):
            if folder not in wanted or not (folder / artefact.MANIFEST).is_file():
                shutil.rmtree(folder)

    def _is_whole(self, kind: str, step: int) -> bool:
        return (self._place(kind, step) / artefact.MANIFEST).is_file()

    def _place(self, kind: str, step: int) -> Path:
        return self.folder / ARTEFACTS / f"{kind}-{step:06d}"


def cut(metrics: Path, progress: Progress) -> None:
    """Keep the lines of a run's record up to where it goes on from; what was not written to the end goes, too."""
    if not metrics.is_file():
        return
    last = {"train": progress.step, "val": progress.evaluated}
    kept = [line for line in metrics.read_bytes().splitlines() if _is_before(line, last)]
    write_bytes(metrics, b"".join(line + b"\n" for line in kept))


def _is_before(line: bytes, last: Mapping[str, int]) -> bool:
    """Whether a line is one, and not beyond the last step of its event."""
    try:
        found = json.loads(line)
        return bool(found["step"] <= last[found["event"]])
    except (ValueError, TypeError, KeyError):
        return False


def _number(name: str) -> int:
    """The step in the name of a file or folder that has one; -1 of another."""
    digits = name.partition("-")[2]
    return int(digits) if digits.isdecimal() else -1


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of nested dictionaries, with their path."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{prefix}{key}", float(value)

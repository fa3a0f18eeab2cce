"""The folder that a run leaves, file by file.

Everything but the logs appears whole or not at all:

    config.yaml          the composed configuration
    metrics.jsonl        a line per logged step and per evaluation
    tensorboard/         the same as events
    panels/step-*.png    pictures with labels and predictions
    artefacts/           best-STEP and last-STEP, each an artefact of mt-core
    result.json          what came out; written when training is done
    log.txt              what was logged
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
from .runs import ARTEFACTS, CONFIG, LOG, METRICS, RESULT

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)


class RunFolder(Listener):
    """Writes a run into a folder.

    Args:
        folder: made by `claim`.
        config: the composed configuration, plain.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.info = RunInfo(folder, config)
        self.folder = folder
        write_bytes(folder / CONFIG, OmegaConf.to_yaml(OmegaConf.create(dict(config))).encode())

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Within, log records and events go into the folder."""
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self.events: SummaryWriter = SummaryWriter(str(self.folder / "tensorboard"))
        handler = logging.FileHandler(self.folder / LOG)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.getLogger().addHandler(handler)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(handler)
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

    def on_evaluation(self, report: EvaluationReport) -> None:
        found = report.evaluation
        losses = {**found.losses, "total": report.loss}
        self._record("val", report.step, {"loss": losses, "metrics": found.metrics, "best": report.best})
        if found.pictures:
            with atomic_path(self.folder / "panels" / f"step-{report.step:06d}.png") as path:
                panels.draw(found.pictures, self.session.built.model.tasks).save(path)
        if report.step:
            self._save("last", report.step)
            if report.best:
                self._save("best", report.step)

    def on_stop(self, step: int) -> None:
        if step:
            self._save("last", step)
            log.warning("stopped after step %d, which is saved in %s", step, self.folder / ARTEFACTS)

    def on_end(self, result: dict[str, Any]) -> None:
        write_json(self.folder / RESULT, plain_numbers(result))

    def _record(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        line = json.dumps(plain_numbers({"event": event, "step": step, **values}), allow_nan=False)
        with (self.folder / METRICS).open("a") as file:
            file.write(line + "\n")
        for name, value in flatten(values):
            self.events.add_scalar(f"{event}/{name}", value, step)

    def _save(self, kind: str, step: int) -> None:
        """Write an artefact into a new folder, and remove the one it replaces when it is whole."""
        home = self.folder / ARTEFACTS
        target = home / f"{kind}-{step:06d}"
        if (target / artefact.MANIFEST).is_file():
            return
        artefact.save(target, self.session.built, self.session.engine.state())
        for old in home.glob(f"{kind}-*"):
            if old != target:
                shutil.rmtree(old)


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of nested dictionaries, with their path."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{prefix}{key}", float(value)

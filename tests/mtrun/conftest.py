"""What the tests of mtrun share: a tiny data set as a plugin, and mtrun called in process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mt_core.discovery import plugins
from mtrun.cli import main

from .toy import ToyPlugin

# A run of a few seconds. Later words win, so a test may add what it needs.
TINY = (
    "adapter=mtlora", "adapter.rank=2", "adapter.task_rank=2", "backbone=swin_nano", "dataset=toy",
    "trainer.batch_size=2", "trainer.workers=0", "trainer.panels=1", "trainer.log_every=1", "trainer.device=cpu",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What a command left on the terminal."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on stdout."""
        lines = self.out.splitlines()
        assert len(lines) == 1, self.out
        return json.loads(lines[0])


Mtrun = Callable[..., Outcome]


@contextmanager
def plugin(instance: object, name: str) -> Iterator[None]:
    """Within, a plugin is installed."""
    found = plugins()
    found.manager.register(instance, name)
    found.sources[name] = f"{name} 1.0"
    try:
        yield
    finally:
        found.manager.unregister(instance)
        del found.sources[name]


@pytest.fixture(autouse=True)
def _toy() -> Iterator[None]:
    with plugin(ToyPlugin(), "toy"):
        yield


@pytest.fixture
def mtrun(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mtrun:
    """Runs a command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Outcome:
        capsys.readouterr()
        code = main(words)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of four steps, for tests that only read it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    with plugin(ToyPlugin(), "toy"):
        assert main([*TINY, "trainer.max_steps=4", "trainer.eval_every=2", f"run_dir={folder}"]) == 0
    return folder

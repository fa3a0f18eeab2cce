"""What the tests of several ranks share: command lines that run as processes of their own, without their imports."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

ZYGOTE = Path(__file__).with_name("zygote.py")
PATIENCE = 300.0  # seconds after which something hangs


@dataclass
class Running:
    """A command line that is being run."""

    pid: int
    log: Path
    zygote: Zygote

    def wait(self) -> int:
        """Its exit code. It leaves no process behind."""
        deadline = time.monotonic() + PATIENCE
        while (code := self.zygote.ask(pid=self.pid)) is None:
            assert time.monotonic() < deadline, f"it hangs: {self.err}"
            time.sleep(0.05)
        return int(code)

    @property
    def out(self) -> str:
        return self.log.with_suffix(".out").read_text()

    @property
    def err(self) -> str:
        return self.log.with_suffix(".err").read_text()

    @property
    def errors(self) -> list[str]:
        """What it said about why it failed."""
        return [line for line in self.err.splitlines() if line.startswith("mtrun: error: ")]


@dataclass
class Zygote:
    """See zygote.py."""

    process: subprocess.Popen[str]
    folder: Path
    count: int = 0
    names: list[str] = field(default_factory=list)

    def ask(self, **request: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, *words: str, cwd: Path, env: Mapping[str, str]) -> Running:
        self.count += 1
        log = self.folder / f"{self.count}.log"
        pid = self.ask(words=words, cwd=str(cwd), env=dict(env), log=str(log.with_suffix("")))
        return Running(pid, log, self)

    def alive(self) -> list[int]:
        """The processes that it has started, and those that they have, that are not at an end."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [process.pid for process in found if _is_alive(process)]

    def assert_nobody_is_left(self) -> None:
        deadline = time.monotonic() + 3
        while (left := self.alive()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not left, [psutil.Process(pid).cmdline() for pid in left]


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    folder = tmp_path_factory.mktemp("zygote")
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, str(ZYGOTE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", (folder / "log").read_text()
        yield Zygote(process, folder)
        assert process.stdin is not None
        process.stdin.close()


Start = Callable[..., Running]
Run = Callable[..., Running]


@pytest.fixture
def start(zygote: Zygote, tmp_path: Path) -> Iterator[Start]:
    """Starts a command line in an empty folder; `trap` is what is to happen, see zygote.py, `env` more variables."""

    def begin(*words: str, trap: Mapping[str, Any] | None = None, env: Mapping[str, str] | None = None) -> Running:
        variables = {} if trap is None else {"TRAP": json.dumps(trap)}
        return zygote.start(*words, cwd=tmp_path, env={**variables, **(env or {})})

    yield begin
    left = zygote.alive()
    for pid in left:
        psutil.Process(pid).kill()
    assert not left


@pytest.fixture
def run(start: Start, zygote: Zygote) -> Run:
    """Runs a command line to its end, of which the exit code has to be the one that is given."""

    def complete(code: int, *words: str, **more: Any) -> Running:
        found = start(*words, **more)
        assert found.wait() == code, found.err
        zygote.assert_nobody_is_left()
        return found

    return complete

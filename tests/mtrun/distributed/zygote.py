"""`python zygote.py`: a process that has imported everything, and forks a command line whenever it is told to.

A rank takes many seconds to import torch, DeepSpeed and the rest, and a test of faults wants many ranks. Forked, they
are processes of their own in everything that such a test looks at: signals, exit codes, children, files, connections.
What a process does before its first line of ours, test_launchers.py looks at with real ones.

Reads a request a line: {"words", "cwd", "env", "log"} starts `mtrun WORDS` and answers its process id, with stdout in
LOG.out and stderr in LOG.err; {"pid"} answers its exit code, or null while it is alive. Whatever the processes leave
behind becomes a child of this one.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import logging
import os
import signal
import sys
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

os.environ["DS_ACCELERATOR"] = "cpu"

import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401 - imported once, for all that are forked
import torch.distributed.rpc
import torch.utils.tensorboard  # noqa: F401
from toy import Toy, ToyPlugin

import mtrun.deepspeed_engine  # noqa: F401
from mt_core.accounting import gmacs
from mt_core.build import Entry, ModelSpec, build
from mt_core.dataset import Sample, Samples
from mt_core.discovery import KINDS, plugins, registry
from mt_core.hookspecs import hookimpl
from mt_core.task import Task
from mt_core.tasks import Depth
from mtrun import cli, launching, rank, signals, state, training
from mtrun.places import PARENT
from mtrun.verbs import VERBS

TRAP = "TRAP"  # in the environment: {"phase", "rank", "at", "do"}
CODES: dict[int, int] = {}  # of the processes that have ended
PR_SET_CHILD_SUBREAPER = 36


def fork(work: Callable[[], int], environment: Mapping[str, str]) -> int:
    """Do some work in a new process, as if it had been started for it."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.setsid()
        signals._depth, signals._pending = 0, None
        weakref.finalize._registry.clear()  # what the parent cleans up is the parent's
        logging.getLogger().handlers.clear()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(environment)
        code = work()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


class Forked:
    """What `subprocess.Popen` is to the launcher; the rank is forked."""

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str], stdin: int, stdout: int | None, start_new_session: bool
    ) -> None:
        assert (command[1:3], stdin, start_new_session) == (["-m", "mtrun.rank"], DEVNULL, True)
        self.returncode: int | None = None

        def work() -> int:
            if stdout is not None:
                os.dup2(os.open(os.devnull, os.O_WRONLY) if stdout == DEVNULL else stdout, 1)
            signals.die_with(int(os.environ[PARENT]))
            return rank.main(command[-1])

        self.pid = fork(work, env)

    def poll(self) -> int | None:
        return self._reaped(os.WNOHANG)

    def wait(self) -> int | None:
        return self._reaped(0)

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def _reaped(self, options: int) -> int | None:
        if self.returncode is None and (found := os.waitpid(self.pid, options))[0]:
            self.returncode = os.waitstatus_to_exitcode(found[1])
        return self.returncode


DEVNULL = -3


# Traps: something happens in a rank when it comes to a place for the so-manieth time.


@dataclass
class Trap:
    """What is to happen.

    Attributes:
        phase: start, train or val (a picture of the split is read), step, saving, hook.
        rank: the one that comes to the place; -1: any.
        at: the so-manieth time.
        do: TERM or INT for the whole run, KILL for the rank, or `hang`.
    """

    phase: str
    at: int = 1
    do: str = "TERM"
    rank: int = -1
    reached: str = ""
    process: int = 0

    def come_to(self, phase: str) -> None:
        here = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))
        if phase != self.phase or self.rank not in (-1, here):
            return
        self.at -= 1
        if self.at == 0:
            if self.reached:
                Path(self.reached).touch()
            if self.do == "KILL":
                os.kill(self.process, signal.SIGKILL)
            elif self.do != "hang":
                os.kill(int(os.environ.get(PARENT, self.process)), signal.Signals[f"SIG{self.do}"])
            time.sleep(600 if self.do == "hang" else 1.5)  # until it has gone through the launcher


def come_to(phase: str) -> None:
    if TRAP in os.environ:
        found: Any = globals().setdefault("_trap", Trap(process=os.getpid(), **json.loads(os.environ[TRAP])))
        found.come_to(phase)


@dataclass(frozen=True)
class Watched:
    """Samples whose reading is a place."""

    samples: Samples
    split: str

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int, /) -> Sample:
        come_to(self.split)
        return self.samples[index]


@dataclass(kw_only=True)
class Trapped(Toy):
    """The toy pictures; looking at one may end the run."""

    def split(self, name: str, tasks: Sequence[Task]) -> Samples:
        come_to("start")
        return Watched(super().split(name, tasks), name)


class TrapPlugin:
    @hookimpl
    def mt_datasets(self) -> Mapping[str, type | str]:
        return {"trap": Trapped}

    @hookimpl
    def mt_step_end(self, step: int) -> None:
        come_to("hook")
        if os.environ.get("FAILING_HOOK") == str(step):
            raise ZeroDivisionError("of a plugin")


def trapped(phase: str, usual: Callable[..., Any]) -> Callable[..., Any]:
    def work(*arguments: Any) -> Any:
        come_to(phase)
        return usual(*arguments)

    return work


def command(request: Mapping[str, Any]) -> int:
    os.chdir(request["cwd"])
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{request['log']}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    return cli.main(request["words"])


def reap() -> None:
    """Note how the children have ended, the adopted ones too."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        CODES[pid] = os.waitstatus_to_exitcode(status)


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    for verb in VERBS.values():
        if verb.target:
            verb.load()
    plugins().manager.register(ToyPlugin(), "toy")
    plugins().manager.register(TrapPlugin(), "trap")
    plugins().sources |= {"toy": "toy 1.0", "trap": "trap 1.0"}
    for kind in KINDS:
        for name in registry(kind):
            registry(kind)[name]
    model = ModelSpec(Entry("swin_nano"), Entry("mtlora"), Entry("hrnet"), (Depth("depth").to_json(),), (32, 40))
    gmacs(build(model).model, (32, 40))  # what shapes alone need is slow the first time; a gradient cannot be forked
    launching.subprocess = SimpleNamespace(Popen=Forked, DEVNULL=DEVNULL)  # type: ignore[assignment]
    training.start_generators = trapped("step", training.start_generators)
    state.sha256 = trapped("saving", state.sha256)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        reap()
        if "pid" in request:
            answer = CODES.get(request["pid"])
        else:
            environment = {**os.environ, **request["env"]}
            answer = fork(partial(command, request), environment)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()

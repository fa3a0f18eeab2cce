"""Starts the ranks of a run on this host and looks after them: `launch.ranks=N`. Imports nothing heavy.

Hydra has composed the configuration once; every rank is a fresh interpreter that is given it as plain values.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mt_core.files import write_json

from . import signals
from .places import OUTCOME, PARENT
from .results import Result

POLL = 0.05  # seconds between two looks at the ranks
SETTLING = 1.0  # seconds in which others may tell more about why a rank has ended


class RankError(Exception):
    """A rank has failed; what it said, and the exit code it ended with."""

    def __init__(self, message: str, exit_code: int, kind: str) -> None:
        super().__init__(message)
        self.exit_code, self.kind = exit_code, kind


@dataclass
class Rank:
    """A process that was started.

    Attributes:
        outcome: the file in which it says how it ended.
        given_up: whether it was killed by us, since it did not end in time.
    """

    number: int
    process: subprocess.Popen[bytes]
    outcome: Path
    given_up: bool = False

    def ended(self) -> dict[str, Any]:
        """What it said when it ended."""
        try:
            found: dict[str, Any] = json.loads(self.outcome.read_bytes())
        except (OSError, ValueError):
            return {}
        return found


def launch(verb: str, values: Mapping[str, Any], as_json: bool) -> Result:
    """Run a verb on `launch.ranks` processes; the main one shows what there is to see.

    Raises:
        RankError: if one of them fails, with its message and exit code. The others are ended.
        Terminated, KeyboardInterrupt: when told to stop, after the ranks have saved.
    """
    options = values["launch"]
    with tempfile.TemporaryDirectory(prefix="mtrun-") as folder:
        request = Path(folder) / "request.json"
        write_json(request, {"verb": verb, "values": values, "as_json": as_json})
        ranks: list[Rank] = []
        try:
            with signals.shielded():
                port = _free_port()
                with signals.blocked():
                    ranks += [
                        _start(number, options["ranks"], port, request, as_json) for number in range(options["ranks"])
                    ]
                stopped = _wait(ranks, options["grace"])
        finally:
            for rank in ranks:
                _end(rank)
        if stopped is not None and all(
            rank.process.returncode in (128 + _number(stopped), 0, -_number(stopped)) for rank in ranks
        ):
            raise stopped
        if (failure := _cause(ranks)) is not None:
            raise failure
        found = ranks[0].ended()
    return Result(found["value"], lambda console: None, found["exit_code"])


def _start(number: int, world: int, port: int, request: Path, as_json: bool) -> Rank:
    outcome = request.with_name(f"outcome-{number}.json")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    environment = {
        "OMP_NUM_THREADS": str(max(1, cores // world)),
        **os.environ,
        "RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), PARENT: str(os.getpid()), OUTCOME: str(outcome),
    }  # fmt: skip
    out = (2 if as_json else None) if number == 0 else subprocess.DEVNULL
    command = [sys.executable, "-m", "mtrun.rank", str(request)]
    # A session of its own: Ctrl-C reaches this process alone, which passes it on once.
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=out, start_new_session=True)
    return Rank(number, process, outcome)


def _wait(ranks: Sequence[Rank], grace: float) -> BaseException | None:
    """Wait until all ranks have ended; the signal that ended them, if one did. Within a shield."""
    stopped: BaseException | None = None
    deadline = float("inf")
    while any(rank.process.poll() is None for rank in ranks):
        failed = any(rank.process.returncode not in (None, 0) for rank in ranks)
        told = signals.pending()
        if told is not None and stopped is not None:
            deadline = 0.0  # told twice
        if told is not None or (failed and deadline == float("inf")):
            if stopped is None and told is None:
                time.sleep(SETTLING)
            _tell(ranks, signal.SIGTERM if told is None else _number(told))
            stopped, deadline = stopped or told, min(deadline, time.monotonic() + grace)
        if time.monotonic() > deadline:
            _tell(ranks, signal.SIGKILL)
        time.sleep(POLL)
    return stopped


def _tell(ranks: Sequence[Rank], number: int) -> None:
    """Send a signal to the ranks that are alive, but not to the processes that read their pictures."""
    for rank in ranks:
        if rank.process.poll() is None:
            rank.given_up = number == signal.SIGKILL
            rank.process.send_signal(number)


def _end(rank: Rank) -> None:
    """Whatever a rank has started ends with it."""
    try:
        os.killpg(rank.process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
    rank.process.wait()


def _cause(ranks: Sequence[Rank]) -> RankError | None:
    """Why the run has failed: what a rank said before what was done to it, and both before what follows from those."""
    failures: list[tuple[int, int, RankError]] = []
    for rank in ranks:
        code = rank.process.returncode
        if code == 0:
            continue
        said = rank.ended()
        if "message" in said:
            error = RankError(said["message"], said["exit_code"], said["type"])
            order = {"LostError": 3, "Terminated": 2}.get(said["type"], 0)
        else:
            signalled = code < 0
            what = f"was killed by {signal.Signals(-code).name}" if signalled else f"ended with exit code {code}"
            hint = "; was memory short?" if code == -signal.SIGKILL else ""
            goes_on = "what was saved before is whole, and mtrun resume=RUN goes on from it"
            error = RankError(
                f"rank {rank.number} {what}{hint} The run has ended; {goes_on}",
                128 - code if signalled else code,
                "RankError",
            )
            order = 2 if rank.given_up or code == -signal.SIGTERM else 1
        failures.append((order, rank.number, error))
    return min(failures, key=lambda entry: entry[:2])[2] if failures else None


def _number(stopped: BaseException) -> signal.Signals:
    return signal.SIGTERM if isinstance(stopped, signals.Terminated) else signal.SIGINT


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])

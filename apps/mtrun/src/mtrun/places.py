"""Which of several processes this one is, as whoever started it says in the environment. Imports nothing heavy."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from mt_core.errors import ConfigError

PARENT = "MTRUN_PARENT"  # process id of the mtrun that started this one
OUTCOME = "MTRUN_OUTCOME"  # the file in which a rank that mtrun started says how it ended


_COMMON = "every rank has met this"


@contextmanager
def met_by_all() -> Iterator[None]:
    """Within, an error is one that every rank meets alike, so that the main one says it for all."""
    try:
        yield
    except BaseException as error:
        error.add_note(_COMMON)
        raise


def is_met_by_all(error: BaseException) -> bool:
    """Whether every rank has this error, too."""
    return _COMMON in getattr(error, "__notes__", ())


@dataclass(frozen=True)
class Place:
    """One of several processes that train together.

    Attributes:
        rank: its number among all of them.
        world: how many there are.
        local: its number among those on this host, which is that of its device.
        local_world: how many there are on this host.
        address, port: where rank 0 listens.
    """

    rank: int
    world: int
    local: int
    local_world: int
    address: str
    port: int


def place(environment: Mapping[str, str] | None = None) -> Place | None:
    """This process among those that torchrun, deepspeed, srun or `launch.ranks` started; None where it is the only one.

    Raises:
        ConfigError: if the environment says something that cannot be.
    """
    found = dict(os.environ if environment is None else environment)
    names = _NAMES if {"RANK", "WORLD_SIZE"} <= found.keys() else _SLURM if _is_srun(found) else None
    if names is None:
        return None
    rank, world = _number(found, names["rank"]), _number(found, names["world"])
    if not 0 <= rank < world:
        raise ConfigError(f"{names['rank']}={rank} and {names['world']}={world} cannot be: ranks count from 0")
    if world == 1:
        return None
    per_node = found.get(names["local_world"], found.get("LOCAL_SIZE", ""))  # the latter is DeepSpeed's
    local_world = _tasks_per_node(per_node) or world
    address = found.get("MASTER_ADDR") or _first_host(found.get("SLURM_STEP_NODELIST", found.get("SLURM_NODELIST", "")))
    port = _number(found, "MASTER_PORT") if "MASTER_PORT" in found else _port_of(found.get("SLURM_JOB_ID", "0"))
    local = _number(found, names["local"]) if names["local"] in found else rank % local_world
    return Place(rank, world, local, local_world, address, port)


def without_local_rank(words: list[str]) -> list[str]:
    """The command line without the --local_rank that the `deepspeed` launcher appends."""
    return [word for word in words if not re.fullmatch(r"--local[_-]rank=\d+", word)]


_NAMES = {"rank": "RANK", "world": "WORLD_SIZE", "local": "LOCAL_RANK", "local_world": "LOCAL_WORLD_SIZE"}
_SLURM = {
    "rank": "SLURM_PROCID",
    "world": "SLURM_NTASKS",
    "local": "SLURM_LOCALID",
    "local_world": "SLURM_STEP_TASKS_PER_NODE",
}


def _is_srun(found: Mapping[str, str]) -> bool:
    """A batch script has SLURM's variables, too, but is one process; a step of srun has a number."""
    return {"SLURM_PROCID", "SLURM_NTASKS"} <= found.keys() and (
        "SLURM_STEP_ID" in found or "SLURM_JOB_ID" not in found
    )


def _number(found: Mapping[str, str], name: str) -> int:
    try:
        return int(found[name])
    except ValueError as error:
        raise ConfigError(f"{name}={found[name]!r} in the environment: expected a whole number") from error


def _tasks_per_node(text: str) -> int:
    """The first number of "4", or of SLURM's "4(x2),3"; 0 where there is none."""
    match = re.match(r"\d+", text)
    return int(match[0]) if match else 0


def _first_host(nodes: str) -> str:
    """The first of SLURM's "node[03-06,9],other"; this host where nothing is said."""
    match = re.match(r"([^\[,]+)(?:\[(\d+))?", nodes)
    return f"{match[1]}{match[2] or ''}" if match else "127.0.0.1"


def _port_of(job: str) -> int:
    """A port that follows from the job, so that all its ranks agree."""
    digits = re.sub(r"\D", "", job) or "0"
    return 20000 + int(digits) % 20000

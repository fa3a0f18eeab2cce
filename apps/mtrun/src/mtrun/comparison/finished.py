"""Runs that are done, as their folders describe them. Anybody may have written these: nothing in them is trusted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from mt_core.errors import CheckpointError

from ..runs import CONFIG, RESULT, read_config, read_result

# Options that move, show or speed up a run and leave its numbers as they are.
OUTSIDE = frozenset(
    {"seed", "run_dir", "resume", "dry_run", "dataset.root"}
    | {f"trainer.{name}" for name in ("device", "workers", "log_every", "panels", "save_every", "keep_states")}
)
CONVENTIONS = ("published", "full")

Scores = dict[str, dict[str, float]]  # by task, by name of the metric; NaN where nothing was measured


@dataclass(frozen=True)
class Finished:
    """A run that is done. What an older version did not record is None, or empty.

    Attributes:
        folder: of the run.
        config: its configuration, flat: `adapter.rank` -> 16; empty where the folder has none.
        tasks: channels by task.
        scores: of the chosen weights.
        directions: of every metric, `higher` or `lower`.
        costs: trainable, live, mib, gmacs published, gmacs full, step_seconds, host_mib, device_mib.
        images: pictures it was evaluated on.
    """

    folder: Path
    config: Mapping[str, Any]
    protocol: str
    dataset: str
    image_size: tuple[int, ...]
    tasks: Mapping[str, int]
    scores: Scores
    directions: Mapping[str, Mapping[str, str]]
    adapter: str
    backbone: str
    decoder: str
    init: str
    device: str
    seed: int | None
    steps: int | None
    images: int | None
    costs: Mapping[str, float]

    @property
    def pictures(self) -> dict[str, Any]:
        """The options that say which pictures it was evaluated on."""
        wanted = (key for key in self.config if key.startswith("dataset.") or key == "trainer.eval_batches")
        return {key: self.config[key] for key in wanted if key not in OUTSIDE}


def read_run(folder: Path, weights: str) -> Finished:
    """What came out of the run in a folder.

    Args:
        weights: `best` or `final`, whose metrics are taken.

    Raises:
        CheckpointError: if there is no run, it is not done, or what it wrote is damaged.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; expected the folder of a run, which holds {RESULT}")
    config = read_config(str(folder)) if (folder / CONFIG).is_file() else {}
    if not (folder / RESULT).is_file():
        hint = f"it is not done; mtrun resume={folder} goes on with it" if config else "it holds no run"
        raise CheckpointError(f"{folder} has no {RESULT}: {hint}")
    return _Reader(folder / RESULT, read_result(folder)).run(folder, dict(flat(config)), weights)


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested dictionaries, as the command line names them; what a group chose has the group's name."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield clean(prefix.removesuffix(".") if key == "name" and prefix else f"{prefix}{key}"), value


def clean(text: str, longest: int = 120) -> str:
    """A text that is safe to print: one line, no control characters, not endless."""
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    return shown if len(shown) <= longest else f"{shown[: longest - 3]}..."


@dataclass(frozen=True)
class _Reader:
    """Takes values out of a `result.json`, and says which one is not what it should be."""

    path: Path
    values: Mapping[str, Any]

    def run(self, folder: Path, config: Mapping[str, Any], weights: str) -> Finished:
        scores, metrics = self.scores(weights), {}
        directions = {clean(str(task)): ways for task, ways in self.mapping(self.values, "directions").items()}
        for task, found in scores.items():
            ways = {clean(str(name)): way for name, way in self.mapping(directions, task).items()}
            metrics[task] = {name: str(ways.get(name)) for name in found}
            if unknown := [name for name, way in metrics[task].items() if way not in ("higher", "lower")]:
                self.fail(f"directions.{task}.{unknown[0]} is neither 'higher' nor 'lower'")
        names = {
            key: clean(str(self.values.get(key) or ""))
            for key in ("protocol", "dataset", "adapter", "backbone", "decoder")
        }
        for key in ("protocol", "dataset"):
            if not names[key]:
                self.fail(f"{key} is missing; without it nothing can be compared")
        environment = self.values.get("environment")
        return Finished(
            folder=folder,
            config=config,
            image_size=tuple(self.list_of_int("image_size")),
            tasks={clean(name): self.whole(n, f"tasks.{name}") for name, n in self.tasks().items()},
            scores=scores,
            directions=metrics,
            init=clean(str(self.values.get("backbone_init") or "")),
            device=clean(str(environment.get("device_name", ""))) if isinstance(environment, dict) else "",
            seed=self.optional("seed"),
            steps=self.optional("steps"),
            images=self.optional("images"),
            costs=self.costs(),
            **names,
        )

    def scores(self, weights: str) -> Scores:
        found = self.mapping(self.values, "metrics").get(weights)
        if not isinstance(found, dict) or not found:
            self.fail(f"metrics.{weights} is missing: the run was never evaluated; mtrun eval checkpoint=RUN does it")
        scores = {
            clean(str(task)): {
                clean(str(name)): math.nan if value is None else self.number(value, f"{task}.{name}")
                for name, value in self.mapping(found, task).items()
            }
            for task in found
        }
        if empty := [task for task, metrics in scores.items() if not metrics]:
            self.fail(f"metrics.{weights}.{empty[0]} holds no metric")
        return scores

    def tasks(self) -> Mapping[str, Any]:
        return self.mapping(self.values, "tasks")

    def costs(self) -> dict[str, float]:
        parameters, gmacs, memory = (self.values.get(key) or {} for key in ("parameters", "gmacs", "peak_memory_mib"))
        sources: dict[str, tuple[Any, str]] = {
            "trainable": (parameters, "trainable"),
            "live": (parameters, "live"),
            **{f"gmacs_{name}": (gmacs, name) for name in CONVENTIONS},
            "step_seconds": (self.values, "step_seconds"),
            "host_mib": (memory, "host"),
            "device_mib": (memory, "device"),
        }
        found = {
            name: self.number(values[key], name)
            for name, (values, key) in sources.items()
            if isinstance(values, dict) and values.get(key) is not None
        }
        if "trainable" in found:
            found["mib"] = found["trainable"] * 4 / 2**20
        return found

    def mapping(self, values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        found = values.get(key)
        if not isinstance(found, dict):
            self.fail(f"{key} is missing, or no object")
        return found

    def number(self, value: Any, name: str) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.fail(f"{name} is {value!r}, expected a number")
        try:
            return float(value)
        except OverflowError:
            self.fail(f"{name} is too large for a number")

    def whole(self, value: Any, name: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(f"{name} is {value!r}, expected a whole number")
        return value

    def optional(self, key: str) -> int | None:
        return None if self.values.get(key) is None else self.whole(self.values[key], key)

    def list_of_int(self, key: str) -> list[int]:
        found = self.values.get(key) or []
        if not isinstance(found, list):
            self.fail(f"{key} is {found!r}, expected [height, width]")
        return [self.whole(value, key) for value in found]

    def fail(self, what: str) -> NoReturn:
        raise CheckpointError(
            f"{clean(str(self.path), 400)}: {clean(what, 400)}; restore the file, or leave the run out"
        )

"""The built-in kinds of task, and the way back from a task's JSON description."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointError, ConfigError, PluginError
from ..task import Task
from .kinds import Depth, Edges, HumanParts, Normals, Saliency, Segmentation

__all__ = ["KINDS", "Depth", "Edges", "HumanParts", "Normals", "Saliency", "Segmentation", "task_from_json"]

KINDS: dict[str, type[Task]] = {kind.kind: kind for kind in (Segmentation, HumanParts, Saliency, Edges, Depth, Normals)}

_TYPES: dict[str, type] = {"name": str, "channels": int, "classes": list, "loss_name": str}


def task_from_json(description: Any, kinds: Mapping[str, type[Task]]) -> Task:
    """The task that `Task.to_json` described.

    Args:
        description: as read from JSON.
        kinds: every kind that is installed, by name.

    Raises:
        PluginError: if no such kind is installed.
        CheckpointError: if the description is not that of a task of its kind.
    """
    if not isinstance(description, dict) or not isinstance(description.get("kind"), str):
        raise CheckpointError(f"task {description!r}: expected an object with a `kind`, as an artefact holds it")
    if description["kind"] not in kinds:
        raise PluginError(
            f"task {description.get('name')!r} is of kind {description['kind']!r}, which is not installed; "
            f"known kinds: {', '.join(sorted(kinds))}; install the package that brings it"
        )
    kind = kinds[description["kind"]]
    values = {name: value for name, value in description.items() if name != "kind"}
    _check_fields(values, kind)
    try:
        return kind(**{**values, "classes": tuple(values["classes"])})
    except ConfigError as error:
        raise CheckpointError(f"the description {description} is no task: {error}") from error


def _check_fields(values: Mapping[str, Any], kind: type[Task]) -> None:
    """Refuse a description whose fields are not the kind's, or not of their types."""
    what = f"task {values.get('name')!r} of kind {kind.kind!r}"
    fields = {field.name for field in dataclasses.fields(kind)}
    if values.keys() != fields:
        raise CheckpointError(
            f"{what}: missing fields {sorted(fields - values.keys())}, unexpected fields "
            f"{sorted(values.keys() - fields)}; the artefact is damaged or was written by another version"
        )
    for name, expected in _TYPES.items():
        if not isinstance(values[name], expected) or isinstance(values[name], bool):
            raise CheckpointError(f"{what}: {name} is {values[name]!r}; expected {expected.__name__}")
    if not all(isinstance(name, str) for name in values["classes"]):
        raise CheckpointError(f"{what}: classes are {values['classes']!r}; expected a list of names")

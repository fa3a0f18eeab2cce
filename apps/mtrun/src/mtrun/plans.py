"""Plans on disk: what a `PlanningAdapter` found in the data, as JSON and as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mt_core import artefact
from mt_core.build import entry
from mt_core.errors import CheckpointError, ConfigError
from mt_core.files import atomic_path, write_json
from mt_core.planning import PlanningAdapter

PLAN, PICTURE = "plan.json", "plan.png"


@dataclass(frozen=True)
class Plan:
    """A plan.

    Attributes:
        adapter: the name of the adapter that made it.
        values: what it says, which only that adapter understands.
        origin: what it was made from, for whoever reads the file.
    """

    adapter: str
    values: Mapping[str, Any]
    origin: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> str:
        """The plan as text."""
        return planner(self.adapter, {}).describe(self.values)

    def save(self, folder: Path) -> None:
        """Write it into a folder, as JSON and as a picture."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / PLAN, {"adapter": self.adapter, "plan": self.values, "from": self.origin})
        self.draw(folder / PICTURE)

    def draw(self, path: Path) -> None:
        """Write its picture."""
        picture = planner(self.adapter, {}).draw(self.values)
        with atomic_path(path) as temporary:
            picture.save(temporary, format="PNG")


def planner(name: str, options: Mapping[str, Any]) -> PlanningAdapter:
    """The adapter of that name.

    Raises:
        ConfigError: if it is not installed, or makes no plans.
    """
    found = entry("adapters", name, options)
    if not isinstance(found, PlanningAdapter):
        raise ConfigError(f"adapter {name} makes no plan: nothing in it depends on the data, as it does in tglora")
    return found


def read_plan(where: str) -> Plan:
    """The plan in a file, in a folder that `mtrun plan` wrote, or of a trained model.

    Raises:
        ConfigError: if there is none, or it cannot be read.
        CheckpointError: if the trained model is damaged.
    """
    path = Path(where)
    file = path / PLAN if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        spec = artefact.read_spec(artefact.find(path))
        return Plan(spec.adapter.name, _checked(spec.plan, where))
    try:
        found = artefact.read_json(file)
    except CheckpointError as error:
        raise ConfigError(f"plan.file={where}: {error}; give what mtrun plan wrote") from error
    origin = found.get("from", {}) if isinstance(found, dict) else None
    if not isinstance(origin, dict) or not isinstance(found.get("adapter"), str):
        raise ConfigError(f"plan.file={where} is no plan: expected an object with adapter and plan")
    return Plan(found["adapter"], _checked(found.get("plan"), where), origin)


def plan_for(adapter: str, where: str) -> dict[str, Any]:
    """What the plan in `where` says, if it is one of `adapter`.

    Raises:
        ConfigError: if it is another adapter's.
    """
    plan = read_plan(where)
    if plan.adapter != adapter:
        raise ConfigError(f"plan.file={where} was made for adapter {plan.adapter}, not for {adapter}; make another")
    return dict(plan.values)


def _checked(plan: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(plan, dict) or not plan:
        raise ConfigError(f"plan.file={where} holds no plan; make one with mtrun plan")
    return plan

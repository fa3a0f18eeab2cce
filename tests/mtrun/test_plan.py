"""The plan step: an adapter looks at the data, before training or on its own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch import nn

from mt_core.adapter import Adapter
from mt_core.artefact import find, load_artefact, read_spec
from mt_core.dataset import Batch
from mt_core.errors import ConfigError
from mt_core.hookspecs import hookimpl
from mt_core.model import MultiTaskModel
from mt_core.planning import PlanningAdapter
from mt_core.site import Role, Site
from mt_core.streams import Streams

from .conftest import TINY, Mtrun, plugin


@dataclass
class Bright(PlanningAdapter):
    """Trains the norms of as many blocks as the pictures are bright: what it sees is easy to check."""

    limit: int = 3
    blocks: int = field(default=0, init=False)

    def plan(self, model: MultiTaskModel, samples: Iterable[Batch]) -> dict[str, Any]:
        seen = [(batch.ids[0], len(batch.ids), float(batch.images.mean())) for batch in samples]
        trained = any(parameter.grad is not None for parameter in model.decoders.parameters())
        frozen = not any(parameter.requires_grad for parameter in model.encoder.parameters())
        state = {"trained": trained, "frozen": frozen, "evaluating": not model.training}
        return {"ids": [name for name, _, _ in seen], "sizes": [size for _, size, _ in seen], "blocks": 2, **state}

    def planned(self, plan: Mapping[str, Any], tasks: Sequence[str]) -> Adapter:
        if not isinstance(plan.get("blocks"), int):
            raise ConfigError("the plan has no blocks; make another")
        found = Bright(self.limit)
        found.blocks = plan["blocks"]
        return found

    def describe(self, plan: Mapping[str, Any]) -> str:
        return f"norms of {plan['blocks']} blocks"

    def draw(self, plan: Mapping[str, Any]) -> Image.Image:
        return Image.new("RGB", (10 * plan["blocks"], 10))

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        return module if site.role is Role.norm and site.block < self.blocks else None


class BrightPlugin:
    """Registers it as a stranger's plugin would."""

    @hookimpl
    def mt_adapters(self) -> Mapping[str, type | str]:
        return {"bright": Bright}


@pytest.fixture(autouse=True)
def _bright() -> Iterator[None]:
    with plugin(BrightPlugin(), "bright"):
        yield


PLANNING = ("adapter=bright", *TINY[3:], "trainer.max_steps=2", "plan.steps=1", "plan.examples=4")


@pytest.fixture
def made(mtrun: Mtrun, tmp_path: Path) -> Path:
    """The folder of a plan."""
    outcome = mtrun("plan", *PLANNING, "run_dir=made")
    assert outcome.code == 0, outcome.err
    return tmp_path / "made"


def test_the_adapter_sees_single_pictures_and_a_frozen_backbone_with_trained_decoders(made: Path) -> None:
    found = json.loads((made / "plan.json").read_text())
    plan = found["plan"]
    assert found["adapter"] == "bright"
    assert plan["sizes"] == [1, 1, 1, 1]
    assert len(set(plan["ids"])) == 4
    assert (plan["trained"], plan["frozen"], plan["evaluating"]) == (True, True, True)
    assert found["from"]["decoder_steps"] == 1


def test_a_plan_is_drawn_and_its_text_shown_where_that_is_asked_for(made: Path, mtrun: Mtrun, tmp_path: Path) -> None:
    assert Image.open(made / "plan.png").size == (20, 10)
    outcome = mtrun("plan", "--show", f"plan.file={made}", "output=again.png")
    assert outcome.code == 0, outcome.err
    assert "norms of 2 blocks" in outcome.out
    assert Image.open(tmp_path / "again.png").size == (20, 10)


def test_training_plans_by_itself_and_the_artefact_holds_the_plan(mtrun: Mtrun, tmp_path: Path) -> None:
    outcome = mtrun(*PLANNING, "run_dir=run", "--json")
    assert outcome.code == 0, outcome.err
    assert "norms of 2 blocks" in outcome.err
    spec = read_spec(find(tmp_path / "run"))
    assert spec.plan["blocks"] == 2
    assert json.loads((tmp_path / "run" / "plan.json").read_text())["plan"] == spec.plan
    model = load_artefact(find(tmp_path / "run")).model
    trained = [name for name, x in model.encoder.named_parameters() if x.requires_grad]
    assert trained
    assert all("norm" in name for name in trained)
    evaluated = mtrun("eval", "checkpoint=run", "--json")
    assert evaluated.json["metrics"] == outcome.json["metrics"]["final"]


@pytest.mark.parametrize("source", ["made", "made/plan.json", "run"])
def test_a_plan_that_is_given_is_followed_and_none_is_made(
    made: Path, source: str, mtrun: Mtrun, tmp_path: Path
) -> None:
    if source == "run":
        assert mtrun(*PLANNING, f"plan.file={made}", "run_dir=run").code == 0
    outcome = mtrun(*PLANNING, f"plan.file={source}", "run_dir=second")
    assert outcome.code == 0, outcome.err
    assert "planning" not in outcome.err
    assert read_spec(find(tmp_path / "second")).plan["blocks"] == 2


def test_parameters_are_counted_without_a_plan_and_with_one(made: Path, mtrun: Mtrun) -> None:
    without = mtrun("params", *PLANNING, "--json").json
    planned = mtrun("params", *PLANNING, f"plan.file={made}", "--json").json
    assert planned["trainable"] > without["trainable"]


def test_a_dry_run_plans_and_writes_nothing(mtrun: Mtrun, tmp_path: Path) -> None:
    outcome = mtrun(*PLANNING, "dry_run=true")
    assert outcome.code == 0, outcome.err
    outcome = mtrun("plan", *PLANNING, "dry_run=true", "--json")
    assert outcome.json["plan"]["blocks"] == 2
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("plan", *TINY), "adapter mtlora makes no plan"),
        (("plan", "--show", "plan.file=nowhere.json"), "missing, or no file; give what mtrun plan wrote"),
        (("plan", "--show", "plan.file=list.json"), "list.json is no plan: expected an object"),
        (("plan", "--show", "plan.file=empty.json"), "empty.json holds no plan"),
        (("plan", "--show", "plan.file=made_of.json"), "made_of.json is no plan: expected an object"),
        (("plan", "--show", "plan.file=good.json", "output=good.json/a.png"), "good.json/a.png cannot be written: "),
        ((*TINY, "plan.file=good.json"), "was made for adapter bright, not for mtlora"),
        ((*PLANNING, "plan.file=odd.json"), "the plan has no blocks"),
        ((*PLANNING, "plan.examples=0"), "plan.examples=0: expected at least 1"),
    ],
)
def test_what_is_no_plan_is_refused(words: tuple[str, ...], message: str, mtrun: Mtrun, tmp_path: Path) -> None:
    files = {
        "list": [],
        "empty": {"adapter": "bright", "plan": {}},
        "made_of": {"adapter": "bright", "plan": {"blocks": 2}, "from": ["pictures"]},
        "good": {"adapter": "bright", "plan": {"blocks": 2}},
        "odd": {"adapter": "bright", "plan": {"blocks": "two"}},
    }
    for name, value in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    outcome = mtrun(*words)
    assert outcome.code == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "runs").exists()

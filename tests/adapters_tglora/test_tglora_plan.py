"""From pictures to a plan, from a plan to a model, through JSON and the artefact; and plans that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mt_adapters_tglora import budget
from mt_adapters_tglora.lora import GroupedLoRA
from mt_adapters_tglora.plan import Plan
from mt_adapters_tglora.tglora import TGLoRA
from mt_core.accounting import gmacs
from mt_core.artefact import load_artefact, save
from mt_core.attachment import attach
from mt_core.backbone import Encoder
from mt_core.build import Entry, ModelSpec, build
from mt_core.errors import ConfigError, DataError
from mt_core.options import to_dict
from mt_core.site import Role, Site
from mt_core.streams import Streams
from mt_core.tasks import Depth, Normals

from .studies import SIZE, TASKS, pictures, study

NAMES = ["semseg", "depth", "normals"]
PLAN: dict[str, Any] = {
    "tasks": NAMES,
    "similarity": [[1.0, -0.02, 0.31], [-0.02, 1.0, 0.04], [0.31, 0.04, 1.0]],
    "examples": 12,
    "groups": [
        [["semseg", "depth", "normals"]],
        [["semseg", "normals"], ["depth"]],
        [["semseg", "normals"], ["depth"]],
        [["semseg"], ["depth"], ["normals"]],
    ],
}


def swin() -> Encoder:
    return study().encoder


def test_two_pairs_of_tasks_that_agree_are_found() -> None:
    tasks = (Depth("near"), Normals("facing"), Depth("far"), Normals("slope"))
    model, batches = study(tasks), pictures(2, tasks)
    for first, second in (("near", "far"), ("facing", "slope")):
        model.decoders[second].load_state_dict(model.decoders[first].state_dict())
        for batch in batches:
            batch.labels[second] = batch.labels[first] * 1.05
    plan = TGLoRA(groups=[1, 2, 2, 4]).plan(model, batches)
    assert plan["groups"][1] == plan["groups"][2] == [["near", "far"], ["facing", "slope"]]
    assert plan["groups"][0] == [["near", "facing", "far", "slope"]]
    assert plan["groups"][3] == [["near"], ["facing"], ["far"], ["slope"]]
    assert plan["similarity"][0][2] > 0.9


def test_a_plan_is_plain_and_is_followed_after_json() -> None:
    plan = TGLoRA(rank=6).plan(study(), pictures(2))
    assert [len(groups) for groups in plan["groups"]] == [1, 1, 2, 3]
    assert (plan["examples"], plan["pairs"], plan["exact"]) == (2, [[2] * 3] * 3, True)
    again = json.loads(json.dumps(plan, allow_nan=False))
    assert again == plan
    method = TGLoRA(rank=6)
    follower = method.planned(again, NAMES)
    assert to_dict(follower) == to_dict(method)
    attachment = attach(follower, swin(), NAMES)
    for stage in range(4):
        streams = attachment.layouts[f"layers.{stage}.blocks.0.attn.qkv"]
        assert [list(stream.tasks) for stream in streams] == plan["groups"][stage]


def test_an_artefact_needs_no_data_to_be_built_again(tmp_path: Path) -> None:
    spec = ModelSpec(
        backbone=Entry("swin_nano"),
        adapter=Entry("tglora", to_dict(TGLoRA(rank=3))),
        decoder=Entry("hrnet"),
        tasks=tuple(task.to_json() for task in TASKS),
        image_size=(64, 64),
        plan=PLAN,
    )
    built = build(ModelSpec.from_json(json.loads(json.dumps(spec.to_json()))))
    with torch.no_grad():
        for parameter in built.model.encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    save(tmp_path / "artefact", built)
    loaded = load_artefact(tmp_path / "artefact")
    assert loaded.spec.plan == PLAN
    assert str(loaded.model.attachment.layouts["layers.1.blocks.0.attn.qkv"]) == "[semseg+normals | depth]"
    images = torch.rand(1, 3, 64, 64)
    expected = built.model.eval()(images)
    assert all(torch.equal(x, expected[task]) for task, x in loaded.model(images).items())


def test_training_moves_every_tasks_loss_down() -> None:
    model, (batch,) = study(), pictures(1)
    model.attachment = attach(TGLoRA(rank=6, dropout=0.0).planned(PLAN, NAMES), model.encoder, NAMES)
    optimizer = torch.optim.Adam([p for p in model.encoder.parameters() if p.requires_grad], lr=5e-3)
    model.decoders.requires_grad_(False)

    def losses() -> dict[str, Tensor]:
        return {name: model.tasks[name].loss(x, batch.labels[name]) for name, x in model(batch.images).items()}

    before = {name: loss.item() for name, loss in losses().items()}
    for _ in range(12):
        optimizer.zero_grad()
        torch.stack(list(losses().values())).sum().backward()
        optimizer.step()
    assert all(loss.item() < before[name] for name, loss in losses().items())


def test_the_cost_of_groups_is_linear_in_their_numbers() -> None:
    model = study()

    def counted(counts: list[int]) -> float:
        return budget.published_gmacs(budget.adapted(model, TGLoRA(groups=counts)), SIZE)

    cost = budget.LinearCost([counted(counts) for counts in budget.few_counts(3, 4)])
    for counts in ((1, 1, 2, 3), (1, 2, 3, 3), (2, 2, 2, 3), (3, 3, 3, 3)):
        assert cost(counts) == pytest.approx(counted(list(counts)), rel=1e-9)


def test_a_budget_of_gmacs_takes_the_most_groups_that_fit() -> None:
    every = list(budget.nondecreasing(3, 4))
    assert len(every) == 15
    cost = budget.LinearCost([10.0, 11.0, 13.0, 16.0, 20.0])  # a group more costs 4, 3, 2, 1 from the first stage on
    for allowed in (10.0, 11.5, 14.0, 17.3, 100.0):
        best = max((g for g in every if cost(g) <= allowed), key=lambda g: (sum(g), g[3], g[2], g[1]))
        assert tuple(budget.most_groups(cost, 3, 4, allowed)) == best
    assert budget.most_groups(cost, 3, 4, 12.0) == [1, 1, 1, 3]
    assert budget.most_groups(cost, 3, 4, 100.0) == [3, 3, 3, 3]


def test_a_plan_within_a_budget_of_gmacs() -> None:
    wanted = budget.published_gmacs(budget.adapted(study(), TGLoRA(groups=[1, 1, 2, 2])), SIZE)
    plan = TGLoRA(budget_gmacs=wanted * (1 + 1e-9)).plan(study(), pictures(1))
    model = study()
    model.attachment = attach(TGLoRA().planned(plan, NAMES), model.encoder, NAMES)
    assert gmacs(model, SIZE)["published"] <= wanted * (1 + 1e-9)
    assert sum(map(len, plan["groups"])) >= 6


def test_a_plan_within_a_budget_of_parameters_has_the_largest_rank_that_fits() -> None:
    def trained(rank: int) -> int:
        return budget.trainable(budget.adapted(study(), TGLoRA(rank=rank)))

    plan = TGLoRA(rank=64, budget_params=float(trained(15))).plan(study(), pictures(1))
    assert plan["rank"] == 15
    model = study()
    model.attachment = attach(TGLoRA(rank=64).planned(plan, NAMES), model.encoder, NAMES)
    assert budget.trainable(model.decoders.requires_grad_(True)) + budget.trainable(model.encoder) == trained(15)
    assert TGLoRA(rank=7, budget_params=1e9).plan(study(), pictures(1))["rank"] == 6


def test_where_every_rank_is_fixed_a_budget_of_parameters_leaves_the_rank() -> None:
    assert budget.largest_share(one=1000, two=1000, wanted=16, budget=1000.0) == 16
    with pytest.raises(ConfigError, match="budget_params=999: rank 1 for each task already takes 1,000 parameters"):
        budget.largest_share(one=1000, two=1000, wanted=16, budget=999.0)


def test_budgets_that_nothing_fits_name_the_least_cost() -> None:
    with pytest.raises(ConfigError, match=r"budget_gmacs=1e-06: one group in every stage already takes 0\.\d+ GMACs"):
        TGLoRA(budget_gmacs=1e-6).plan(study(), pictures(1))
    with pytest.raises(ConfigError, match=r"budget_params=7: rank 1 for each task already takes [\d,]+ parameters"):
        TGLoRA(budget_params=7.0).plan(study(), pictures(1))


def test_without_pictures_there_is_no_plan() -> None:
    with pytest.raises(DataError, match="no samples to measure the similarity of the tasks on"):
        TGLoRA().plan(study(), [])


def test_a_plan_as_text_shows_matrix_and_tree() -> None:
    assert TGLoRA().describe(PLAN | {"rank": 9}).splitlines() == [
        "similarity of the tasks' gradients: mean cosine over 12 pictures",
        "",
        "        semseg  depth normals",
        "semseg   1.000 -0.020   0.310",
        "depth   -0.020  1.000   0.040",
        "normals  0.310  0.040   1.000",
        "",
        "groups of tasks that share a path",
        "",
        "stage 1  [ semseg    normals    depth ]",
        "stage 2  [ semseg    normals ][ depth ]",
        "stage 3  [ semseg    normals ][ depth ]",
        "stage 4  [ semseg ][ normals ][ depth ]",
        "",
        "rank 9, to fit the budget of parameters",
    ]


def test_a_plan_as_a_picture_is_blue_where_tasks_agree_and_red_where_they_conflict() -> None:
    picture = TGLoRA().draw(PLAN)
    assert picture.mode == "RGB"
    colours = {colour for _, colour in picture.getcolors(1 << 20)}
    assert {(31, 119, 180), (255, 255, 255)} <= colours
    against = PLAN | {"similarity": [[1, -0.5, 0], [-0.5, 1, 0], [0, 0, 1]]}
    assert (214, 69, 65) in {colour for _, colour in TGLoRA().draw(against).getcolors(1 << 20)}
    assert TGLoRA().draw(against).tobytes() != picture.tobytes()


@pytest.mark.parametrize("tasks", [1, 2, 9])
@pytest.mark.parametrize("stages", [1, 4])
def test_any_number_of_tasks_and_stages_can_be_drawn(tasks: int, stages: int) -> None:
    names = [f"task_number_{i}" for i in range(tasks)]
    plan = {"tasks": names, "similarity": [[0.0] * tasks] * tasks, "examples": 1, "groups": [[names]] * stages}
    picture = TGLoRA().draw(plan)
    assert picture.width > 300
    assert all(picture.getpixel((x, y)) == (255, 255, 255) for x in (0, picture.width - 1) for y in range(0, 200, 7))
    assert Plan.read(plan).counts == [1] * stages


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "no tasks": ({"tasks": []}, r"tasks=\[\], expected names, each once"),
    "a task twice": ({"tasks": ["depth", "depth"]}, "expected names, each once"),
    "no similarities": ({"similarity": None}, "similarity is None, expected 3 rows of 3 numbers"),
    "too few": ({"similarity": [[1.0, 0.0, 0.0]] * 2}, "expected 3 rows of 3 numbers"),
    "not a number": ({"similarity": [[1.0, 0.0, float("nan")]] * 3}, "expected 3 rows of 3 numbers"),
    "a number beyond all": ({"similarity": [[1, 0, 10**400]] * 3}, "expected 3 rows of 3 numbers"),
    "no examples": ({"examples": "many"}, "examples='many', expected how many pictures it is from"),
    "a rank of none": ({"rank": 0}, "rank=0, expected a positive number or none"),
    "no groups": ({"groups": None}, "groups=None, expected a list of groups for each stage"),
    "no lists": ({"groups": [["semseg", "depth", "normals"]]}, "stage 1 is .* expected lists of task names"),
    "an empty group": ({"groups": [[NAMES, []]]}, "expected lists of task names"),
    "a task in no group": ({"groups": [[["semseg", "depth"]]]}, "which is not each of semseg, depth, normals once"),
    "a task in two": ({"groups": [[NAMES, ["depth"]]]}, "which is not each of semseg, depth, normals once"),
    "groups that merge": (
        {"groups": [[["semseg", "depth"], ["normals"]], [["semseg", "normals"], ["depth"]]]},
        "stage 2 joins semseg, normals, which the stage before keeps apart",
    ),
}


@pytest.mark.parametrize(("changes", "message"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_plan_is_refused(changes: dict[str, Any], message: str) -> None:
    for use in (TGLoRA().describe, TGLoRA().draw, lambda plan: TGLoRA().planned(plan, NAMES)):
        with pytest.raises(ConfigError, match=message):
            use(PLAN | changes)


def test_a_plan_for_something_else_is_refused() -> None:
    with pytest.raises(ConfigError, match="made for tasks semseg, depth, normals, not for semseg, depth; make"):
        TGLoRA().planned(PLAN, ["semseg", "depth"])
    with pytest.raises(ConfigError, match=r"but the plan has \[1, 2, 2, 3\]; leave groups away"):
        TGLoRA(groups=[1, 1, 2, 3]).planned(PLAN, NAMES)
    short = PLAN | {"groups": PLAN["groups"][:2]}
    with pytest.raises(ConfigError, match="plan of tglora is for 2 stages, this backbone has 4"):
        attach(TGLoRA().planned(short, NAMES), swin(), NAMES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank=0 last_rank=None: expected positive numbers"),
        ({"last_rank": 0}, "rank=64 last_rank=0: expected positive numbers"),
        ({"dropout": 1.0}, "dropout=1.0: expected a probability below 1"),
        ({"budget_gmacs": 0.0}, "budget_gmacs=0.0: expected a positive number, or null for no budget"),
        ({"budget_params": -1.0}, "budget_params=-1.0: expected a positive number, or null for no budget"),
        ({"groups": []}, r"groups=\[\]: expected a number for each stage, from 1, none less"),
        ({"groups": [0, 1]}, "expected a number for each stage, from 1, none less"),
        ({"groups": [2, 1]}, "expected a number for each stage, from 1, none less"),
        ({"groups": [1, 2], "budget_gmacs": 5.0}, r"groups=\[1, 2\] and budget_gmacs=5 exclude each other"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TGLoRA(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 2}, "rank=2 for 3 tasks: each needs a rank of 1"),
        ({"groups": [1, 2, 3]}, "a number for each of the backbone's 4 stages, at most 3, the number of tasks"),
        ({"groups": [1, 2, 3, 4]}, "a number for each of the backbone's 4 stages, at most 3, the number of tasks"),
    ],
)
def test_options_that_do_not_fit_tasks_and_backbone_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        attach(TGLoRA(**options), swin(), NAMES)


@pytest.mark.parametrize("adapter", [TGLoRA(budget_gmacs=5.0), TGLoRA(budget_params=1e6)])
def test_a_budget_without_a_plan_is_refused(adapter: TGLoRA) -> None:
    site = Site("blocks.0.attn.qkv", Role.qkv, stage=0)
    with pytest.raises(ConfigError, match="a budget is kept by the plan, and there is none; make one"):
        adapter.adapt(site, nn.Linear(8, 24), Streams.trunk(["semseg", "depth"]))


def test_a_backbone_of_a_single_stage_has_the_rank_that_is_asked_for() -> None:
    tasks = ["semseg", "human_parts", "saliency", "normals"]
    layer = TGLoRA(rank=32).adapt(Site("blocks.0.attn.qkv", Role.qkv, 0), nn.Linear(8, 24), Streams.trunk(tasks))
    assert isinstance(layer, GroupedLoRA)
    assert {name: len(a) for name, a in layer.group_a.items()} == dict.fromkeys(tasks, 8)

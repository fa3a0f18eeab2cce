"""VMT-Adapter's options, what it answers at which site, and that it learns."""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import nn

from mt_adapters_vmt.parallel import LastParallelAdapter, ParallelAdapter
from mt_adapters_vmt.projections import KroneckerProjections, Projections
from mt_adapters_vmt.vmt import VMTAdapter, VMTAdapterLite
from mt_core.attachment import attach
from mt_core.errors import ConfigError
from mt_core.options import from_dict, to_dict
from mt_core.site import Role, Site
from mt_core.streams import Streams
from mt_core.testing.miniatures import architectures, randomise

STREAMS = Streams.trunk(("semseg", "depth"))


def mlp(width: int = 16) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


def answer(
    adapter: VMTAdapter, block: int = 0, last: bool = False, module: nn.Module | None = None
) -> nn.Module | None:
    return adapter.adapt(Site(f"{block}.mlp", Role.mlp, 0, last=last, block=block), module or mlp(), STREAMS)


def test_the_defaults_are_the_papers_recommendation() -> None:
    assert to_dict(VMTAdapter()) == {"ratio": 4, "gating": 0.5}
    assert to_dict(VMTAdapterLite()) == {"ratio": 4, "gating": 0.5, "kronecker": 3}
    assert VMTAdapter.usual_decoder == VMTAdapterLite.usual_decoder == "segformer"


@pytest.mark.parametrize("adapter", [VMTAdapter(ratio=8), VMTAdapterLite(kronecker=6, gating=0.25)])
def test_options_are_the_same_when_read_again(adapter: VMTAdapter) -> None:
    assert from_dict(type(adapter), to_dict(adapter), "adapter") == adapter


def test_every_option_is_described() -> None:
    text = f"{VMTAdapter.__doc__}{VMTAdapterLite.__doc__}"
    assert all(f"{field.name}:" in text for field in fields(VMTAdapterLite))


REFUSED: dict[str, tuple[type[VMTAdapter], dict[str, Any], str]] = {
    "no ratio": (VMTAdapter, {"ratio": 0}, "ratio=0: expected a whole number from 1, the block's width over"),
    "nothing for the tasks": (VMTAdapter, {"gating": 0.0}, "gating=0.0: expected a share of F for the tasks, above 0"),
    "more than all": (VMTAdapterLite, {"gating": 1.5}, "gating=1.5: expected a share of F for the tasks, above 0"),
    "no products": (VMTAdapterLite, {"kronecker": 0}, "kronecker=0: expected a whole number of products from 1"),
}


@pytest.mark.parametrize(("cls", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused(cls: type[VMTAdapter], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cls(**options)


def test_a_ratio_beyond_the_width_is_refused_where_it_is_found() -> None:
    with pytest.raises(ConfigError, match=r"ratio=32 leaves nothing of the width 16 at 0\.mlp; give a smaller one"):
        answer(VMTAdapter(ratio=32))


def test_products_that_would_be_cut_away_are_refused() -> None:
    with pytest.raises(ConfigError, match="kronecker=12 does not part the width 16; give a number that divides it"):
        answer(VMTAdapterLite(kronecker=12))


def test_an_mlp_without_linear_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"0\.mlp \(Conv2d\) has no linear layer, which tells VMT-Adapter the width"):
        answer(VMTAdapter(), module=nn.Conv2d(4, 4, 1))


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.mlp])
def test_only_mlps_are_adapted(role: Role) -> None:
    assert VMTAdapter().adapt(Site("layer", role, 0), nn.Linear(8, 8), STREAMS) is None


def test_each_block_has_a_module_and_the_last_of_a_stage_lets_the_tasks_go() -> None:
    adapter = VMTAdapter()
    first, last = answer(adapter, 0), answer(adapter, 1, last=True)
    assert type(first) is ParallelAdapter
    assert isinstance(last, LastParallelAdapter)
    assert first.full_after == STREAMS
    assert str(last.full_after) == "[semseg+depth | ~semseg | ~depth]"
    assert first.stage is last.stage
    assert (first.block, last.block) == (0, 1)


def test_stages_and_encoders_do_not_share_a_sum() -> None:
    adapter = VMTAdapter()
    abandoned = answer(adapter, 0)
    stages = [[answer(adapter, 0), answer(adapter, 1, last=True)], [answer(adapter, 2, last=True)]]
    sums = {id(abandoned.stage), *(id(module.stage) for stage in stages for module in stage)}
    assert len(sums) == 3
    assert [stage[-1].stage.blocks for stage in stages] == [2, 1]


def test_parameters_have_the_type_of_the_block_and_start_as_nothing() -> None:
    for adapter, kind in ((VMTAdapter(), Projections), (VMTAdapterLite(), KroneckerProjections)):
        module = answer(adapter, last=True, module=mlp().double())
        assert isinstance(module, LastParallelAdapter)
        assert isinstance(module.shared, kind)
        assert {p.dtype for p in module.parameters()} == {torch.float64}
        assert not module.shared(torch.randn(3, 16, dtype=torch.float64)).any()
        assert all(bool((alpha == 1).all()) for alpha in module.alpha.values())
        assert not any(bool(gamma.any()) for gamma in module.gamma.values())


@pytest.mark.parametrize("backbone", architectures())
@pytest.mark.parametrize("adapter", [VMTAdapter(), VMTAdapterLite()], ids=["vmt", "vmt_lite"])
def test_each_tasks_loss_falls(adapter: VMTAdapter, backbone: str) -> None:
    """The features of another adapter of the same form are learnt."""
    plain, images = architectures()[backbone].miniature()
    attached = [attach(adapter, copy.deepcopy(plain).eval(), STREAMS.tasks) for _ in range(2)]
    teacher, student = attached
    parameters = [[p for p in x.encoder.parameters() if p.requires_grad] for x in attached]
    randomise(parameters[0], std=0.5)
    with torch.no_grad():
        wanted = teacher.features(teacher.encoder(images))
    optimizer, history = torch.optim.Adam(parameters[1], lr=0.03), []
    for _ in range(40):
        found = student.features(student.encoder(images))
        pairs = {task: zip(found[task], wanted[task], strict=True) for task in found}
        losses = torch.stack([torch.stack([(x - y).square().mean() for x, y in pairs[task]]).mean() for task in found])
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
        history.append(losses.detach())
    assert bool((history[-1] < 0.5 * history[0]).all()), history[:: len(history) - 1]

"""Sites, and the small modules where streams meet and leave."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given

from mt_core.site import Join, Prompts, Residual, Role, Site, Tap, block_sites
from mt_core.streams import Stream, Streams

from .test_streams import forks, members, rows

TRUNK = Streams.trunk(("a", "b"))


def test_only_joins_and_taps_are_structural() -> None:
    structural = {role for role in Role if Site("somewhere", role, 0).structural}
    assert structural == {Role.join, Role.tap}


def test_roles_are_the_words_that_options_name_them_by() -> None:
    assert all(role == role.name == str(role) for role in Role)


def test_a_join_in_a_plain_backbone_hands_both_through() -> None:
    a, b = torch.rand(2, 3), torch.rand(2, 4)
    left, right = Join()(a, b)
    assert left is a
    assert right is b


def test_a_residual_in_a_plain_backbone_is_a_sum() -> None:
    a, b = torch.rand(2, 3), torch.rand(2, 3)
    assert torch.equal(Residual()(a, b), a + b)


def test_a_tap_in_a_plain_backbone_gives_the_same_twice() -> None:
    x = torch.rand(2, 3)
    features, onwards = Tap()(x)
    assert features is x
    assert onwards is x


@given(forks())
def test_paths_meet_in_the_streams_of_the_one_that_forked_more(fork: tuple[Streams, Streams]) -> None:
    before, after = fork
    assert members(Join.meet(before, after)) == members(Join.meet(after, before)) == members(after)


@given(forks())
def test_a_join_repeats_the_side_with_fewer_streams_for_its_children(fork: tuple[Streams, Streams]) -> None:
    before, after = fork
    join = Join()
    join.bind(before, after, after)
    left, right = join(rows(before, 2), rows(after, 2))
    assert left.view(len(after), 2, 2)[:, 0, 0].tolist() == list(before.parents(after))
    assert torch.equal(right, rows(after, 2))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (Streams((Stream(("a",)), Stream(("b", "c")))), Streams((Stream(("a", "b")), Stream(("c",))))),
        (TRUNK.per_task(), TRUNK.with_sides()),
    ],
    ids=["other groups", "side streams of one only"],
)
def test_paths_that_forked_apart_cannot_meet(left: Streams, right: Streams) -> None:
    with pytest.raises(ValueError, match="cannot meet: neither is a further fork of the other"):
        Join.meet(left, right)


def test_a_residual_adds_each_branch_to_the_stream_it_came_from() -> None:
    residual, forked = Residual(), TRUNK.per_task()
    residual.bind(TRUNK, forked, forked)
    x, branch = torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0, 30.0, 40.0])
    assert residual(x, branch).tolist() == [11, 22, 31, 42]


def test_a_tap_hands_out_what_serves_and_carries_on_without_the_sides() -> None:
    tap, streams = Tap(), TRUNK.with_sides()
    tap.bind(streams, streams.sides, streams.carried)
    features, onwards = tap(torch.tensor([1, 2, 10, 20, 30, 40]))
    assert features.tolist() == [10, 20, 30, 40]
    assert onwards.tolist() == [1, 2]


def test_a_block_lists_its_sites_in_the_order_they_run_with_its_attention_among_them() -> None:
    attention = [Site("attn.q", Role.q, 1), Site("attn.kv", Role.kv, 1, reads="norm1", parts=(4, 4))]
    sites = block_sites("blocks.3", attention, entrance="blocks.2.residual2", stage=1, last=True, number=3)
    names = ["norm1", "attn.q", "attn.kv", "residual1", "norm2", "mlp", "mlp.fc1", "mlp.fc2", "residual2"]
    assert [site.path for site in sites] == [f"blocks.3.{name}" for name in names]
    assert {(site.stage, site.last, site.block) for site in sites} == {(1, True, 3)}
    assert sites[2].parts == (4, 4)
    assert {site.path.removeprefix("blocks.3."): site.reads for site in sites if site.reads is not None} == {
        "norm1": "blocks.2.residual2",
        "attn.kv": "blocks.3.norm1",
        "residual1": "blocks.2.residual2",
        "mlp.fc1": "blocks.3.norm2",
        "residual2": "blocks.3.residual1",
    }


def test_prompts_are_handed_through_until_an_adapter_puts_others() -> None:
    x, prompts = torch.randn(2, 3, 3, 4), torch.randn(2, 5, 4)
    assert all(a is b for a, b in zip(Prompts(4)(x, prompts), (x, prompts), strict=True))
    assert Prompts(4)(x, None)[1] is None

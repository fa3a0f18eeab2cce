"""Attaching: whom the adapter is asked about, which streams flow where, and what nobody needs is not computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from mt_core.adapter import Adapter, SiteModule, StreamModule, private_tasks
from mt_core.attachment import Attachment, attach
from mt_core.errors import ConfigError, PluginError
from mt_core.frozen import Frozen
from mt_core.site import Role, Site
from mt_core.streams import Streams

from .toys import TASKS, TaskLoRA, ToyEncoder, ToyLoRA

Answer = Callable[[nn.Module, Streams], object]

IMAGES = torch.rand(2, 3, 16, 24)


class Answers(Adapter):
    """Answers the sites named as told, and remembers everything it was asked."""

    def __init__(self, **answers: Answer) -> None:
        self.answers = {path.replace("__", "."): answer for path, answer in answers.items()}
        self.asked: list[tuple[Site, nn.Module, Streams]] = []

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        self.asked.append((site, module, streams))
        answer = self.answers.get(site.path)
        return None if answer is None else answer(module, streams)  # type: ignore[return-value]

    @property
    def paths(self) -> list[str]:
        return [site.path for site, _, _ in self.asked]


class Stamped(StreamModule):
    """Adds to each stream a number of its own."""

    NUMBERS: ClassVar = {"semseg": 1.0, "depth": 2.0, "normals": 3.0}

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fork(self.base(x)).unflatten(0, (len(self.after), -1))  # (S, B, ...)
        numbers = [self.NUMBERS.get(str(stream).removeprefix("~"), 0.0) for stream in self.after]
        y = y + torch.tensor(numbers).view(-1, *[1] * (y.dim() - 1))
        return y.flatten(0, 1)


def per_task(module: nn.Module, streams: Streams) -> nn.Module:
    return Stamped(module, streams, streams.per_task())


def with_sides(module: nn.Module, streams: Streams) -> nn.Module:
    return Stamped(module, streams, streams.with_sides())


def put_in(tasks: Sequence[str] = TASKS, /, **answers: Answer) -> Attachment:
    torch.manual_seed(0)
    return attach(Answers(**answers), ToyEncoder().eval(), tasks)


def features(attachment: Attachment) -> dict[str, list[Tensor]]:
    with torch.no_grad():
        return attachment.features(attachment.encoder(IMAGES))


def rows(attachment: Attachment, *paths: str) -> list[int]:
    """How many rows go into the modules at `paths`, per image."""
    seen: dict[str, int] = {}
    hooks = [
        attachment.encoder.get_submodule(path).register_forward_pre_hook(
            lambda _, args, path=path: seen.update({path: len(args[0]) // len(IMAGES)})
        )
        for path in paths
    ]
    attachment.encoder(IMAGES)
    for hook in hooks:
        hook.remove()
    return [seen[path] for path in paths]


def test_the_adapter_is_asked_once_per_site_in_the_order_they_run_and_never_about_joins_and_taps() -> None:
    adapter, encoder = Answers(), ToyEncoder()
    attach(adapter, encoder, TASKS)
    assert adapter.paths == [site.path for site in encoder.sites() if not site.structural]
    assert all(module is encoder.get_submodule(site.path) for site, module, _ in adapter.asked)


def test_the_adapter_is_told_which_streams_arrive_by_every_path() -> None:
    adapter = Answers(block0__attn__qkv=with_sides, block1__attn__q=per_task)
    attach(adapter, ToyEncoder(), ("a", "b"))
    arriving = {site.path: str(streams) for site, _, streams in adapter.asked}
    assert arriving["block0.attn.qkv"] == "[a+b]"
    assert arriving["block0.attn.proj"] == arriving["block0.mlp.fc2"] == "[a+b | ~a | ~b]"
    assert arriving["merging.reduction"] == "[a+b]", "side streams leave at the tap"
    assert arriving["block1.attn.kv"] == "[a+b]", "it reads the norm, not q"
    assert arriving["block1.attn.proj"] == arriving["block1.mlp"] == "[a | b]"


def test_everything_is_frozen_but_what_the_adapter_answers() -> None:
    attachment = put_in(
        block0__norm1=lambda module, streams: module,
        block0__attn__qkv=lambda module, streams: TaskLoRA(module, streams),  # type: ignore[arg-type]
    )
    trained = {name.removesuffix(".semseg") for name, p in attachment.encoder.named_parameters() if p.requires_grad}
    new = {f"block0.attn.qkv.{pair}.{task}" for pair in "ab" for task in TASKS[1:]}
    assert trained == {"block0.norm1.weight", "block0.norm1.bias", "block0.attn.qkv.a", "block0.attn.qkv.b"} | new
    assert attachment.replaced == ("block0.attn.qkv",)


def test_an_encoder_left_alone_computes_what_it_did() -> None:
    encoder = ToyEncoder()
    expected = encoder(IMAGES)
    attachment = attach(Frozen(), encoder, TASKS)
    found = attachment.features(encoder(IMAGES))
    assert list(found) == list(TASKS)
    for levels in found.values():
        assert_close(levels, expected, rtol=0, atol=0)


def test_a_fork_anywhere_gives_each_task_its_own_features_from_there_on() -> None:
    plain, forked = features(put_in())["depth"], features(put_in(merging__reduction=per_task))
    for task in TASKS:
        assert_close(forked[task][0], plain[0])
        assert not torch.allclose(forked[task][1], plain[1])
    assert not torch.allclose(forked["semseg"][1], forked["depth"][1])


def test_a_side_stream_serves_its_level_and_leaves_no_trace_in_the_next() -> None:
    plain, found = features(put_in())["depth"], features(put_in(block0__mlp__fc2=with_sides))
    for task in TASKS:
        assert_close(found[task][0], plain[0] + Stamped.NUMBERS[task])
        assert_close(found[task][1], plain[1])


def test_sites_inside_a_replaced_one_are_hidden_and_whoever_reads_them_reads_what_stands_there() -> None:
    adapter = Answers(block0__mlp=per_task, block1__mlp=lambda module, streams: nn.Sequential(module))
    attachment = attach(adapter, ToyEncoder(), ("a", "b"))
    assert not [path for path in adapter.paths if ".mlp." in path]
    assert str(attachment.layouts["block0.residual2"]) == "[a | b]"
    assert attachment.sources["block0.residual2"] == ["block0.residual1", "block0.mlp"]
    attachment.encoder(IMAGES)


def test_what_reads_inside_a_replaced_site_reads_what_stands_in_its_place() -> None:
    class ReadsInside(ToyEncoder):
        def sites(self) -> list[Site]:
            return [
                replace(site, reads="block0.mlp.fc2") if site.path == "merging.reduction" else site
                for site in super().sites()
            ]

    attachment = attach(Answers(block0__mlp=per_task), ReadsInside(), ("a", "b"))
    assert attachment.sources["merging.reduction"] == ["block0.mlp"]


def test_a_module_that_never_hears_of_streams_may_stand_anywhere() -> None:
    class Shift(SiteModule):
        def forward(self, x: Tensor) -> Tensor:
            return torch.as_tensor(self.base(x) + 1)

    found = features(put_in(patch_embed=per_task, block0__attn__qkv=lambda module, streams: Shift(module)))
    assert [level.shape for level in found["depth"]] == [(2, 6, 4, 6), (2, 12, 2, 3)]


def test_features_come_in_the_users_order_whatever_the_streams_do() -> None:
    def shuffled(module: nn.Module, streams: Streams) -> nn.Module:
        return Stamped(module, streams, streams.split([["normals"], ["semseg"], ["depth"]]))

    attachment = put_in(("depth", "normals", "semseg"), patch_embed=shuffled)
    assert list(features(attachment)) == ["depth", "normals", "semseg"]
    straight = features(put_in(patch_embed=per_task))
    for task, levels in features(attachment).items():
        assert_close(levels, straight[task])


def test_one_task_alone_runs_one_stream() -> None:
    attachment = attach(ToyLoRA(), ToyEncoder(), TASKS)
    sites = ("block0.attn.qkv.base", "block0.attn.proj", "block1.attn.kv", "block1.mlp.fc1")
    assert rows(attachment, *sites) == [1, 3, 3, 3]
    attachment.select(["depth"])
    assert rows(attachment, *sites) == [1, 1, 1, 1]
    assert attachment.selected == ("depth",)


def test_a_stream_that_nobody_reads_is_not_computed() -> None:
    attachment = put_in(block0__attn__proj=with_sides, block1__attn__proj=with_sides)
    late = ("block1.residual1", "block1.mlp.fc1", "block1.mlp.fc2")
    assert rows(attachment, "block0.mlp.fc1", *late) == [4, 1, 3, 3], "at the very end nobody reads the shared stream"
    attachment.select(["depth", "semseg"])
    assert rows(attachment, "block0.mlp.fc1", *late) == [3, 1, 2, 2]


def test_selected_tasks_are_the_same_as_among_all() -> None:
    attachment = put_in(block0__attn__proj=with_sides, block1__attn__q=per_task)
    whole = features(attachment)
    for chosen in (["depth"], ["normals", "semseg"], list(TASKS)):
        attachment.select(chosen)
        some = features(attachment)
        assert list(some) == [task for task in TASKS if task in chosen], "in the user's order"
        assert_close(some, {task: whole[task] for task in some})


@pytest.mark.parametrize(
    ("tasks", "message"), [([], "cannot select no task"), (["depth", "x"], r"cannot select \['depth', 'x'\]: attached")]
)
def test_only_tasks_that_are_there_can_be_selected(tasks: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        put_in().select(tasks)


def test_no_task_is_no_encoder() -> None:
    with pytest.raises(ValueError, match="serves no task"):
        attach(Frozen(), ToyEncoder(), ())


WRONG: dict[str, tuple[Answer, str]] = {
    "not a module": (
        lambda module, streams: "LoRA",
        "Answers answered site block0.attn.qkv with 'LoRA'; expected a module",
    ),
    "made for other streams": (
        lambda module, streams: Stamped(module, streams.per_task()),
        r"Answers at block0.attn.qkv \(qkv\): Stamped was made for the streams \[semseg \| depth \| normals\], but "
        r"\[semseg\+depth\+normals\] arrive",
    ),
    "merges streams": (
        lambda module, streams: Stamped(module, streams.per_task(), streams),
        r"Answers at block0.attn.qkv \(qkv\): stream semseg\+depth\+normals descends from no stream",
    ),
    "loses a task": (
        lambda module, streams: Stamped(module, streams, streams.per_task()[:2]),
        r"Answers at block0.attn.qkv \(qkv\): normals would be lost between",
    ),
    "serves a task twice": (
        lambda module, streams: Stamped(module, streams, Streams((*streams, *streams.per_task()))),
        r"Answers at block0.attn.qkv \(qkv\): a task is served twice by the carried streams",
    ),
}


@pytest.mark.parametrize(("answer", "message"), WRONG.values(), ids=WRONG)
def test_an_answer_that_cannot_stand_is_refused_naming_the_adapter_and_the_site(answer: Answer, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        put_in(block0__attn__qkv=answer)


def test_a_side_stream_that_leaves_before_the_tap_is_refused() -> None:
    def drops(module: nn.Module, streams: Streams) -> nn.Module:
        return Stamped(module, streams, streams.carried)

    with pytest.raises(PluginError, match=r"Answers at block0.mlp.fc1 \(fc1\): ~semseg, ~depth, ~normals cannot leave"):
        put_in(block0__attn__qkv=with_sides, block0__mlp__fc1=drops)


def test_paths_that_forked_apart_are_refused_where_they_meet() -> None:
    def grouped(*groups: list[str]) -> Answer:
        return lambda module, streams: Stamped(module, streams, streams.split(groups))

    with pytest.raises(PluginError, match=r"at block1.attn.meet \(join\): .* cannot meet: neither is a further fork"):
        put_in(
            block1__attn__q=grouped(["semseg"], ["depth", "normals"]),
            block1__attn__kv=grouped(["semseg", "depth"], ["normals"]),
        )


def test_an_adapter_that_refuses_a_backbone_speaks_for_itself() -> None:
    def refuses(module: nn.Module, streams: Streams) -> nn.Module:
        raise ConfigError("rank=64 is more than the width 6")

    with pytest.raises(ConfigError, match=r"^rank=64 is more than the width 6$"):
        put_in(block0__attn__qkv=refuses)


def test_an_encoder_that_lists_what_is_not_there_is_refused() -> None:
    class Wrong(ToyEncoder):
        def sites(self) -> list[Site]:
            return [Site("stem", Role.patch_embed, 0, reads="")]

    with pytest.raises(PluginError, match="Wrong lists the site 'stem', but has no module there"):
        attach(Frozen(), Wrong(), TASKS)


def test_an_encoder_that_reads_what_is_not_there_is_refused() -> None:
    class Wrong(ToyEncoder):
        def sites(self) -> list[Site]:
            return [Site("patch_embed", Role.patch_embed, 0, reads="stem")]

    with pytest.raises(PluginError, match="Wrong: patch_embed reads 'stem', which is no site before it"):
        attach(Frozen(), Wrong(), TASKS)


@pytest.mark.parametrize(
    ("name", "owners"),
    [
        ("block0.attn.qkv.b.depth", ("depth",)),
        ("block0.attn.qkv.b.semseg+depth", ("semseg", "depth")),
        ("block0.attn.qkv.b.depths", TASKS),
        ("block0.norm1.weight", TASKS),
    ],
)
def test_the_name_of_a_parameter_says_whose_it_is(name: str, owners: tuple[str, ...]) -> None:
    assert private_tasks(name, TASKS) == owners

"""Visual prompt tuning on Swin equals the paper's words, window by window and head by head; and counts."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mt_adapters_baselines.vpt import SharedPrompts, TaskPrompts, VPTDeep, VPTShallow
from mt_core.accounting import count_parameters
from mt_core.attachment import attach
from mt_core.decoders.segformer import Segformer
from mt_core.errors import ConfigError, MergeError
from mt_core.merging import merge
from mt_core.model import MultiTaskModel
from mt_core.site import Role
from mt_core.tasks import HumanParts, Normals, Saliency, Segmentation
from mt_core.testing import AdapterConformance
from mt_core.testing.miniatures import architectures

swin = pytest.importorskip("mt_backbones_swin.swin", reason="mt-backbones-swin is not installed")

TASKS = ("semseg", "depth", "normals")
PASCAL = (Segmentation("semseg", 21), HumanParts("human_parts", 7), Saliency("saliency", 1), Normals("normals", 3))


class TestShared(AdapterConformance):
    entry = VPTDeep(tokens=3, per_task=False)


def literal_levels(encoder: Any, image: Tensor, prompts: dict[int, Tensor]) -> list[Tensor]:
    """One picture and one task: {block: the prompts that join there} -> [(C, H, W), ...], after patch merging."""
    x, tokens, levels, number = encoder.patch_embed(image[None])[0], None, [], 0
    for i, stage in enumerate(encoder.layers):
        for block in stage.blocks:
            tokens = prompts.get(number, tokens)
            x, tokens = literal_block(block, x, tokens)
            number += 1
        if i + 1 < len(encoder.layers):
            merging = encoder.layers[i + 1].downsample
            x = merging(x[None])[0]
            tokens = merging.reduction(merging.norm(torch.cat([tokens, tokens, tokens, tokens], dim=-1)))
        levels.append(x.permute(2, 0, 1))
    return levels


def literal_block(block: Any, x: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
    height, width, channels = x.shape
    (window_h, window_w), (shift_h, shift_w) = block.window, block.shift
    down, right = -(-height // window_h), -(-width // window_w)
    padded = x.new_zeros(down * window_h, right * window_w, channels)
    padded[:height, :width] = torch.roll(block.norm1(x), (-shift_h, -shift_w), dims=(0, 1))
    answers = []
    for i in range(down):
        for j in range(right):
            place = slice(i * window_h, (i + 1) * window_h), slice(j * window_w, (j + 1) * window_w)
            mask = 0 if block.mask is None else block.mask[i * right + j]
            tokens = torch.cat([block.norm1(prompts), padded[place].flatten(0, 1)])
            tokens = literal_attention(block.attn, tokens, len(prompts), mask)
            answers.append(tokens[: len(prompts)])
            padded[place] = tokens[len(prompts) :].view(window_h, window_w, channels)
    x = x + torch.roll(padded[:height, :width], (shift_h, shift_w), dims=(0, 1))
    prompts = prompts + torch.stack(answers).mean(0)
    return x + block.mlp(block.norm2(x)), prompts + block.mlp(block.norm2(prompts))


def literal_attention(attention: Any, tokens: Tensor, prompts: int, mask: Tensor | int) -> Tensor:
    width, outputs = attention.width // attention.heads, []
    q, k, v = (attention.qkv.weight @ tokens.T + attention.qkv.bias[:, None]).T.chunk(3, dim=-1)
    for head in range(attention.heads):
        part = slice(head * width, (head + 1) * width)
        logits = q[:, part] @ k[:, part].T / width**0.5
        logits[prompts:, prompts:] += attention.bias()[head] + mask
        outputs.append(logits.softmax(-1) @ v[:, part])
    return attention.proj(torch.cat(outputs, dim=-1))


@pytest.mark.parametrize("per_task", [False, True], ids=["shared", "per_task"])
@pytest.mark.parametrize("method", [VPTShallow, VPTDeep])
def test_features_are_what_the_paper_says(method: type[VPTShallow], per_task: bool) -> None:
    encoder, images = swin.SwinTiny.miniature()
    encoder.double().eval()
    for name, parameter in encoder.named_parameters():
        if "table" in name:
            torch.nn.init.normal_(parameter)
    attachment = attach(method(tokens=3, per_task=per_task, bound=1.0), copy.deepcopy(encoder), TASKS)
    features = attachment.features(attachment.encoder(images.double()))
    blocks = [site.path for site in encoder.sites() if site.role is Role.prompts]
    found = [attachment.encoder.get_submodule(path) for path in blocks]
    for task in TASKS[1:]:
        own = {
            number: module.prompts[task] if per_task else module.prompts
            for number, module in enumerate(found)
            if isinstance(module, SharedPrompts | TaskPrompts)
        }
        assert len(own) == (len(blocks) if method is VPTDeep else 1)
        expected = literal_levels(encoder, images[1].double(), own)
        assert_close([level[1] for level in features[task]], expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(("method", "exact", "printed"), [(VPTShallow, 19_200, 2.57), (VPTDeep, 883_200, 3.43)])
def test_counts_are_the_papers(method: type[VPTShallow], exact: int, printed: float) -> None:
    with torch.device("meta"):
        model = MultiTaskModel(swin.SwinTiny().settled("segformer").build((224, 224)), method(), Segformer(), PASCAL)
    counts = count_parameters(model, (224, 224))
    assert counts.groups["adapter"].trainable == counts.groups["adapter"].live == exact
    assert counts.trainable == exact + 2_549_024
    assert round(counts.trainable / 1e6, 2) == printed


def test_prompts_learn() -> None:
    encoder, images = swin.SwinTiny.miniature()
    attachment = attach(VPTDeep(tokens=2), encoder.eval(), TASKS[:2])
    targets = {task: attachment.features(encoder(images))["depth"][0].detach() for task in TASKS[:2]}
    optimiser = torch.optim.Adam([p for p in encoder.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(8):
        features = attachment.features(encoder(images))
        loss = torch.stack([(features[t][0] - i - targets[t]).square().mean() for i, t in enumerate(targets)]).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_prompts_cannot_be_merged() -> None:
    encoder, _ = swin.SwinTiny.miniature()
    with pytest.raises(MergeError, match="prompts are tokens, which are no change of weight"):
        merge(attach(VPTShallow(tokens=2), encoder, TASKS), "depth")


def test_it_says_that_it_does_not_start_as_the_frozen_encoder() -> None:
    encoder, images = swin.SwinTiny.miniature()
    plain = encoder.eval()(images)
    attachment = attach(VPTShallow(tokens=2), encoder, TASKS)
    assert not VPTShallow.starts_as_identity
    assert not torch.allclose(attachment.features(encoder(images))["depth"][-1], plain[-1])


@pytest.mark.parametrize("name", [name for name in architectures() if "swin" not in name])
def test_backbones_for_which_it_is_not_defined_are_refused(name: str) -> None:
    encoder, _ = architectures()[name].miniature()
    with pytest.raises(ConfigError, match="has no place for prompts: visual prompt tuning is defined for Swin"):
        attach(VPTShallow(), encoder, TASKS)


@pytest.mark.parametrize("options", [{"tokens": 0}, {"bound": 0.0}])
def test_options_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected at least one token, a bound above 0"):
        VPTShallow(**options)

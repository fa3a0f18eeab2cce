"""The decoder of mSAM equals SAM's own mask decoder, called once for each picture and channel."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from segment_anything import modeling
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from mt_backbones_sam.sam import Features, SamNano
from mt_backbones_sam.sam_mask import SamMask, SamMaskHead
from mt_core.accounting import count_parameters
from mt_core.decoder import Decoder
from mt_core.decoders.aspp import ASPP
from mt_core.decoders.hrnet import HRNet
from mt_core.decoders.segformer import Segformer
from mt_core.errors import ConfigError
from mt_core.frozen import Frozen
from mt_core.model import MultiTaskModel
from mt_core.tasks import Depth, Normals, Segmentation

from .originals import mask_decoder

SIZE = (3, 5)
MASK_DECODER = 4_058_340  # parameters of SAM's mask decoder
IDLE = 552_036  # of its IoU head and the hypernetworks of masks 1 to 3


class Case(NamedTuple):
    """A head, SAM's own decoder with the same weights, and an image embedding."""

    head: SamMaskHead
    original: modeling.MaskDecoder
    image: Tensor  # (2, C, *SIZE)


def case(channels: int = 5, dtype: torch.dtype = torch.float64, width: int = 32, **options: Any) -> Case:
    original = mask_decoder(width)
    with torch.no_grad():
        for parameter in original.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.03)  # norms and biases, too
    head = SamMaskHead(copy.deepcopy(original), channels, **options).to(dtype)
    return Case(head, original.to(dtype), torch.randn(2, width, *SIZE, dtype=dtype, requires_grad=True))


def literal(head: SamMaskHead, original: modeling.MaskDecoder, image: Tensor) -> Tensor:
    """mSAM as the papers write it: for each picture and channel one call of SAM's decoder, mask 0 of its four."""
    pe = head.pe_layer(*SIZE).T.unflatten(1, SIZE).unsqueeze(0)  # (1, C, h, w)

    def one(picture: Tensor, channel: int) -> Tensor:
        dense = head.no_mask_embed.weight[channel].view(1, -1, 1, 1).expand(1, -1, *SIZE)
        sparse = (
            image.new_zeros(1, 0, image.shape[1])
            if head.prompts is None
            else head.prompts.weight[channel].view(1, 1, -1)
        )
        masks: Tensor = original.predict_masks(picture.unsqueeze(0), pe, sparse, dense)[0]
        return masks[0, 0]  # (4h, 4w)

    channels = range(head.no_mask_embed.num_embeddings)
    return torch.stack([torch.stack([one(picture, c) for c in channels]) for picture in image])


def gradients(case: Case, run: Callable[[], Tensor]) -> dict[str, Tensor]:
    """Of a loss that every logit enters with a weight of its own, by the names of the head."""
    for module in (case.head, case.original):
        module.zero_grad(set_to_none=True)
    case.image.grad = None
    logits = run()
    (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).to(logits)).sum().backward()
    named = {f"mask_decoder.{name}": p for name, p in case.original.named_parameters()}
    own = {name: p for name, p in case.head.named_parameters() if p.grad is not None}
    return {name: p.grad for name, p in {**named, **own, "image": case.image}.items() if p.grad is not None}


def check_equality(both: Case) -> None:
    head, _, image = both
    assert_close(head([image]), literal(*both), atol=1e-9, rtol=1e-9)
    expected = gradients(both, lambda: literal(*both))
    found = gradients(both, lambda: head([image]))
    assert found.keys() == {name for name in expected if not idle(name)}
    assert_close(found, {name: expected[name] for name in found}, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("prompts", [False, True], ids=["", "with prompt tokens"])
@pytest.mark.parametrize(("channels", "chunk"), [(1, 0), (5, 0), (5, 2)])
def test_logits_and_gradients_are_those_of_sams_own_decoder(channels: int, chunk: int, prompts: bool) -> None:
    check_equality(case(channels, prompts=prompts, chunk=chunk))


def test_so_they_are_at_its_true_width() -> None:
    check_equality(case(2, width=256))


def idle(name: str) -> bool:
    """Whether a parameter serves masks 1 to 3 only. (The literal route computes them: their gradient is zero.)"""
    return any(f"output_hypernetworks_mlps.{i}." in name for i in (1, 2, 3))


def test_the_encoding_of_places_is_that_of_sams_prompt_encoder() -> None:
    head, original = case(dtype=torch.float32, width=256).head, modeling.prompt_encoder.PositionEmbeddingRandom(128)
    head.pe_layer.load_state_dict(original.state_dict())
    assert_close(head.pe_layer(7, 4).T.unflatten(1, (7, 4)), original((7, 4)), atol=1e-5, rtol=1e-5)


def model(decoder: Decoder, features: Features = Features.neck) -> MultiTaskModel:
    tasks = (Segmentation("semseg", 13), Depth("depth"), Normals("normals"))
    encoder = SamNano(features=features).build((64, 96))
    return MultiTaskModel(encoder, Frozen(), decoder, tasks)


def test_a_decoder_has_the_parameters_of_sams_and_an_embedding_for_each_channel() -> None:
    for task, channels in (("semseg", 13), ("depth", 1), ("normals", 3)):
        head = model(SamMask()).decoders[task]
        assert sum(p.numel() for p in head.parameters()) == MASK_DECODER + 256 * channels
    names = {name: x.shape for name, x in mask_decoder().state_dict().items()}
    assert {name: x.shape for name, x in case(width=256).head.mask_decoder.state_dict().items()} == names


def test_552036_of_its_parameters_are_never_run() -> None:
    counted = count_parameters(model(SamMask()), (64, 96))
    for task, channels in (("semseg", 13), ("depth", 1), ("normals", 3)):
        count = counted.groups[f"decoder.{task}"]
        assert (count.trainable, count.trainable - count.live) == (MASK_DECODER + 256 * channels, IDLE)


def test_a_prompt_token_for_each_channel_is_counted_once_more() -> None:
    head = model(SamMask(prompt_tokens=True)).decoders["semseg"]
    assert sum(p.numel() for p in head.parameters()) == MASK_DECODER + 2 * 256 * 13


@pytest.mark.parametrize("prompts", [False, True], ids=["", "with prompt tokens"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("chunk", [3, 20])
def test_chunks_change_nothing(chunk: int, checkpointing: bool, prompts: bool) -> None:
    both = case(7, prompts=prompts)
    head, _, image = both
    expected, wanted = head([image]), gradients(both, lambda: head([image]))
    head.chunk, head.checkpointing = chunk, checkpointing
    assert_close(head([image]), expected)
    assert_close(gradients(both, lambda: head([image])), wanted)


def kept(run: Callable[[], Tensor]) -> int:
    """The bytes of all the tensors that a forward keeps for the backward pass, each storage once."""
    storages: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        run()
    return sum(storages.values())


def test_what_is_kept_for_the_backward_pass_is_little_and_next_to_nothing_with_checkpointing() -> None:
    head, original, _ = case(8, dtype=torch.float32, width=128)
    image = torch.randn(1, 128, 24, 32)
    dense = head.no_mask_embed.weight[:, :, None, None].expand(-1, -1, 24, 32)
    pe = head.pe_layer(24, 32).T.unflatten(1, (24, 32)).unsqueeze(0)
    literally = kept(lambda: original.predict_masks(image, pe, image.new_zeros(8, 0, 128), dense)[0])
    assert kept(lambda: head([image])) < 0.7 * literally
    head.checkpointing = True
    assert kept(lambda: head([image])) < 0.05 * literally


@torch.no_grad()
def test_it_multiplies_less_than_half_as_often() -> None:
    with torch.device("meta"):
        head, original = SamMaskHead(mask_decoder(), 13), mask_decoder()
        image = torch.empty(1, 256, 64, 64)  # at 1024 pixels
        with FlopCounterMode(display=False) as ours:
            head.eval()([image])
        with FlopCounterMode(display=False) as literally:
            original.predict_masks(image, image, image.new_empty(13, 0, 256), image.new_empty(13, 256, 64, 64))
    assert literally.get_total_flops() / 13 / 2e9 == pytest.approx(1.79, abs=0.005)
    assert ours.get_total_flops() < literally.get_total_flops() / 2


def test_parameters_are_used_only_where_their_module_is_called() -> None:
    # ZeRO-3 has the parameters of a module gathered while it is called, and at no other time
    head, _, image = case()
    called: set[nn.Module] = set()
    for module in head.modules():
        module.register_forward_pre_hook(lambda module, _: called.add(module))
    head([image]).sum().backward()
    for name, module in head.named_modules():
        if any(p.grad is not None for p in module.parameters(recurse=False)):
            assert module in called, name


def test_bf16_stays_close() -> None:
    head, _, image = case(dtype=torch.float32)
    with torch.no_grad():
        exact = head([image])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = head([image])
        rougher = head.bfloat16()([image.bfloat16()])
    assert torch.cosine_similarity(rough.float().flatten(), exact.flatten(), dim=0) > 0.999
    assert torch.cosine_similarity(rougher.float().flatten(), exact.flatten(), dim=0) > 0.99


@torch.no_grad()
def test_it_compiles_as_one_graph() -> None:
    head, _, image = case(3, dtype=torch.float32, chunk=2)
    torch._dynamo.reset()
    compiled: Callable[[list[Tensor]], Tensor] = torch.compile(head.eval(), fullgraph=True, backend="aot_eager")
    assert_close(compiled([image]), head([image]))


def test_features_of_another_width_are_refused() -> None:
    message = r"decoder sam_mask reads 256 channels in the last level, .* 64 at 1/16.*backbone.features=neck"
    with pytest.raises(ConfigError, match=message):
        model(SamMask(), Features.blocks)


def test_swins_miniature_is_refused() -> None:
    swin = pytest.importorskip("mt_backbones_swin.swin", reason="mt-backbones-swin is not installed")
    with pytest.raises(ConfigError, match=r"decoder sam_mask reads 256 channels"):
        SamMask().build(Depth("depth"), swin.SwinTiny.miniature()[0])


def test_a_negative_chunk_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"decoder.chunk=-1: expected a number of channels, or 0 for all at once"):
        SamMask(chunk=-1)


@pytest.mark.parametrize("features", Features)
@pytest.mark.parametrize("decoder", [HRNet(), ASPP(), Segformer()], ids=lambda decoder: type(decoder).__name__)
def test_cores_decoders_read_the_neck_and_the_blocks(decoder: Decoder, features: Features) -> None:
    logits = model(decoder, features)(torch.rand(2, 3, 64, 96))
    assert {task: x.shape for task, x in logits.items()} == {
        "semseg": (2, 13, 64, 96), "depth": (2, 1, 64, 96), "normals": (2, 3, 64, 96)
    }  # fmt: skip


def test_a_model_of_sam_and_its_decoders_learns() -> None:
    learner, images = model(SamMask(checkpointing=False)), torch.rand(2, 3, 32, 48)
    learner.select(["semseg"])
    target = torch.full((2, 32, 48), 3)
    optimizer = torch.optim.Adam(learner.decoders["semseg"].parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        loss = nn.functional.cross_entropy(learner(images)["semseg"], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]

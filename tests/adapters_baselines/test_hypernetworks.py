"""HyperFormer and Polyhistor: the equations one entry at a time, one network for all layers, and counts."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from mt_adapters_baselines.hypernetwork import GeneratedBottleneck, HeadPerWidth, HyperNetwork, ScaledTemplates
from mt_adapters_baselines.hypernetworks import HyperFormer, Polyhistor, PolyhistorLite
from mt_core.accounting import count_parameters
from mt_core.artefact import trained_state
from mt_core.attachment import Attachment, attach
from mt_core.decoders.segformer import Segformer
from mt_core.errors import ConfigError, MergeError
from mt_core.merging import merge
from mt_core.model import MultiTaskModel
from mt_core.site import Role, Site
from mt_core.streams import Streams
from mt_core.tasks import HumanParts, Normals, Saliency, Segmentation
from mt_core.testing.miniatures import architectures, randomise

TASKS = ("semseg", "depth", "normals")
SMALL = {"reduction": 2, "embedding": 5, "hidden": 7}
METHODS = {
    "hyperformer": HyperFormer(**SMALL),
    "polyhistor": Polyhistor(**SMALL, rank=3),
    "polyhistor_lite": PolyhistorLite(**SMALL, rank=3),
}
SWIN_T = [(96, 2), (192, 2), (384, 6), (768, 2)]  # width, blocks
PASCAL = (Segmentation("semseg", 21), HumanParts("human_parts", 7), Saliency("saliency", 1), Normals("normals", 3))


def adapted(method: HyperFormer) -> tuple[Attachment, Tensor]:
    encoder, images = list(architectures().values())[-1].miniature()
    attachment = attach(method, encoder.double().eval(), TASKS)
    randomise([p for p in encoder.parameters() if p.requires_grad], 0.3)
    return attachment, images.double()


def bottlenecks(encoder: nn.Module) -> list[GeneratedBottleneck]:
    return [module for module in encoder.modules() if isinstance(module, GeneratedBottleneck)]


def literal_matrix(head: nn.Module, embedding: Tensor) -> Tensor:
    """Entry by entry: sum_e H[i, o, e] I[e]; of a decomposed head, the product of two of these."""
    if hasattr(head, "weight"):
        return torch.stack([torch.stack([(entry * embedding).sum() for entry in row]) for row in head.weight])
    first, last = (
        torch.stack([torch.stack([(entry * embedding).sum() for entry in row]) for row in part])
        for part in (head.first, head.last)
    )
    return first @ last


def literal_projections(network: HyperNetwork, task: str, layer: int) -> tuple[Tensor, Tensor]:
    joined = torch.cat([network.task[task], network.layer[layer]])
    first, _, second = network.mix
    mixed = second.weight @ (first.weight @ joined + first.bias).clamp(min=0) + second.bias
    if isinstance(network, ScaledTemplates):
        down, up = literal_matrix(network.down, mixed), literal_matrix(network.up, mixed)
        return torch.kron(network.scale_down[layer], down), torch.kron(network.scale_up[layer], up)
    assert isinstance(network, HeadPerWidth)
    width = str(network.shapes[layer][0])
    return literal_matrix(network.down[width], mixed), literal_matrix(network.up[width], mixed)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_bottleneck_is_what_the_equations_say(method: HyperFormer) -> None:
    attachment, _ = adapted(method)
    for module in (bottlenecks(attachment.encoder)[0], bottlenecks(attachment.encoder)[-1]):
        x = torch.randn(len(module.before) * 2, 3, module.shape[0]).double()
        shared = copy.deepcopy(module)
        shared.base = nn.Identity()
        found = shared(x).unflatten(0, (len(TASKS), 2))
        inputs = x.unflatten(0, (len(module.before), 2)).expand(len(TASKS), -1, -1, -1)
        for task, y, row in zip(TASKS, found, inputs, strict=True):
            down, up = literal_projections(module.network, task, module.layer)
            assert down.shape == module.shape
            assert_close(y, row + (row @ down).clamp(min=0) @ up, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_all_layers_have_one_network_that_is_counted_and_saved_once(method: HyperFormer) -> None:
    attachment, _ = adapted(method)
    layers = bottlenecks(attachment.encoder)
    assert len({id(module.network) for module in layers}) == 1
    assert [module.layer for module in layers] == list(range(len(layers)))
    saved = trained_state(attachment.encoder)
    assert sum(x.numel() for x in saved.values()) == sum(p.numel() for p in layers[0].network.parameters())


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_method_learns_what_each_task_wants(method: HyperFormer) -> None:
    trunk, apart = Streams.trunk(TASKS), Streams.trunk(TASKS).per_task()
    first = method.adapt(Site("0", Role.mlp, 0), nn.Linear(8, 8), trunk)
    second = method.adapt(Site("1", Role.mlp, 1), nn.Linear(8, 16), apart)
    layers = nn.Sequential(first, second)
    method.attached(layers)
    x = torch.randn(32, 1, 8)
    with torch.no_grad():
        frozen = layers(x).unflatten(0, (len(TASKS), -1))
        target = frozen * torch.tensor([0.5, 1.0, 2.0]).view(-1, 1, 1, 1)
    optimiser = torch.optim.Adam(first.network.parameters(), lr=3e-2)
    losses = []
    for _ in range(40):
        loss = (layers(x).unflatten(0, (len(TASKS), -1)) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_an_activation_cannot_be_merged() -> None:
    attachment, _ = adapted(METHODS["hyperformer"])
    with pytest.raises(MergeError, match="an activation stands between its projections"):
        merge(attachment, "depth")


COUNTS = {  # sizes of ours that print the published figures: the papers name none
    "hyperformer": (HyperFormer(reduction=32, embedding=1480, hidden=64), 72_770_184, 72.77),
    "polyhistor": (Polyhistor(reduction=8, embedding=240, hidden=256, rank=8), 6_409_456, 6.41),
    "polyhistor_lite": (PolyhistorLite(reduction=1, embedding=64, hidden=64, rank=16), 407_124, 0.41),
}


def closed_form(method: HyperFormer) -> int:
    e, h, rho = method.embedding, method.hidden, method.reduction
    layers = sum(blocks for _, blocks in SWIN_T)
    common = (len(PASCAL) + layers) * e + 2 * e * h + h + h * e + e
    if isinstance(method, PolyhistorLite):
        kernels = sum(2 * blocks * (width // 96) ** 2 for width, blocks in SWIN_T)
        return common + 2 * e * method.rank * (96 + 96 // rho) + kernels
    if isinstance(method, Polyhistor):
        return common + sum(2 * e * method.rank * (width + width // rho) for width, _ in SWIN_T)
    return common + sum(2 * e * width * (width // rho) for width, _ in SWIN_T)


@pytest.mark.parametrize(("method", "exact", "printed"), COUNTS.values(), ids=COUNTS)
def test_sizes_that_print_the_published_counts(method: HyperFormer, exact: int, printed: float) -> None:
    swin = pytest.importorskip("mt_backbones_swin.swin", reason="mt-backbones-swin is not installed")
    with torch.device("meta"):
        model = MultiTaskModel(swin.SwinTiny().settled("segformer").build((224, 224)), method, Segformer(), PASCAL)
    counts = count_parameters(model, (224, 224))
    assert counts.groups["adapter"].trainable == exact == closed_form(method)
    assert round(exact / 1e6, 2) == printed
    assert counts.trainable - exact == 2_549_024
    assert counts.groups["adapter"].live == exact


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (HyperFormer, {"embedding": 0}, "expected three numbers from 1"),
        (Polyhistor, {"rank": 0}, "expected products of rank 1 or more"),
        (PolyhistorLite, {"sites": ["qkv"]}, "'qkv' is none of mlp, proj"),
    ],
)
def test_options_that_cannot_work_are_refused(
    make: type[HyperFormer], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**options)


def test_a_bottleneck_without_channels_is_refused() -> None:
    encoder, _ = next(iter(architectures().values())).miniature()
    with pytest.raises(ConfigError, match=r"reduction=4096 leaves nothing of the \d+ channels of "):
        attach(HyperFormer(reduction=4096), encoder, TASKS)

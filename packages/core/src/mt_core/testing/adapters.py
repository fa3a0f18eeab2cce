"""What every adapter must do, on the miniature of every backbone."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from itertools import combinations
from typing import Any, ClassVar

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from ..adapter import Adapter, private_tasks
from ..artefact import load_trained, trained_state
from ..attachment import attach
from ..backbone import Backbone, Encoder
from ..discovery import registry
from ..errors import ConfigError, MergeError
from ..merging import merge
from ..options import from_dict, to_dict
from ..site import Site
from ..streams import Streams
from .miniatures import architectures, assert_alike, randomise

TASKS = ("semseg", "depth", "normals")


class _Recorder:
    """Passes the adapter's answers on, and remembers what of the backbone it trains as it is."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter, self.trained = adapter, list[str]()

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        answer = self.adapter.adapt(site, module, streams)
        if answer is module:
            self.trained.append(site.path + ".")
        return answer

    def attached(self, encoder: Encoder) -> None:
        frozen = [name for name, p in encoder.named_parameters() if not p.requires_grad]
        self.adapter.attached(encoder)
        self.trained += [_plain_name(name) for name in frozen if encoder.get_parameter(name).requires_grad]


class AdapterCase:
    """An adapter in a backbone's miniature.

    Attributes:
        plain: the encoder before anything was attached.
        encoder: the same with the adapter in it.
        images: (B, 3, H, W).
        trained: paths (with a final dot) of the sites that the adapter trains as they are, and names of the parameters
            that it trains by `attached`.

    Args:
        moved: by how much to move the trainable parameters from their start, as if they were trained.
        dtype: float64 where results must agree, so that rounding decides nothing.
        seed: of the adapter's own random start; the backbone is always the same.
    """

    def __init__(
        self,
        adapter: Adapter,
        backbone: type[Backbone],
        moved: float = 0.0,
        dtype: torch.dtype = torch.float64,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(0)
        self.adapter, self.backbone = adapter, backbone
        self.plain, images = backbone.miniature()
        self.plain.eval().requires_grad_(False).to(dtype)
        self.images = images.to(dtype)
        torch.manual_seed(seed)
        recorder = _Recorder(adapter)
        self.attachment = attach(recorder, copy.deepcopy(self.plain), TASKS)  # type: ignore[arg-type]
        self.encoder: Encoder = self.attachment.encoder.eval()
        self.trained = recorder.trained
        randomise(self.trainable(), moved)

    def trainable(self) -> list[nn.Parameter]:
        return [p for p in self.encoder.parameters() if p.requires_grad]

    def features(self, images: Tensor | None = None) -> dict[str, list[Tensor]]:
        """{task: [(B, C_l, H_l, W_l), ...]}"""
        return self.attachment.features(self.encoder(self.images if images is None else images))

    def loss(self, tasks: tuple[str, ...] = TASKS) -> Tensor:
        """A loss that every feature of `tasks` enters with a weight of its own."""
        features, generator = self.features(), torch.Generator().manual_seed(1)
        terms = [
            (level * torch.randn(level.shape, generator=generator, dtype=level.dtype)).mean() + level.square().mean()
            for task in tasks
            for level in features[task]
        ]
        return torch.stack(terms).sum()

    def gradients(self, tasks: tuple[str, ...] = TASKS) -> dict[str, Tensor]:
        """The gradient of `loss` in every trainable parameter that it reaches."""
        self.encoder.zero_grad(set_to_none=True)
        if (loss := self.loss(tasks)).requires_grad:
            loss.backward()
        return {name: p.grad for name, p in self.encoder.named_parameters() if p.grad is not None}


class AdapterConformance:
    """The contract of an adapter. Set `entry` to an adapter, or to the name of one that is registered."""

    entry: ClassVar[Adapter | str]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "backbone" in metafunc.fixturenames:
            names = list(architectures())
            # Compiling is slow, and what cannot be traced is the one or the other: the kit of backbones compiles too.
            names = names[:1] if metafunc.function.__name__ == "test_compiles_as_one_graph" else names
            metafunc.parametrize("backbone", [architectures()[name] for name in names], ids=names)

    @pytest.fixture
    def make(self, backbone: type[Backbone]) -> Callable[..., AdapterCase]:
        def build(**how: Any) -> AdapterCase:
            try:
                adapter = registry("adapters")[self.entry]() if isinstance(self.entry, str) else self.entry
                return AdapterCase(adapter, backbone, **how)
            except ConfigError as refusal:
                pytest.skip(f"refused: {refusal}")

        return build

    @pytest.fixture
    def case(self, make: Callable[..., AdapterCase]) -> AdapterCase:
        return make()

    @pytest.fixture
    def trained(self, make: Callable[..., AdapterCase]) -> AdapterCase:
        return make(moved=0.1)

    def test_options_survive_json(self, case: AdapterCase) -> None:
        options = json.loads(json.dumps(to_dict(case.adapter)))
        assert from_dict(type(case.adapter), options, "adapter") == case.adapter

    def test_starts_as_the_frozen_backbone(self, case: AdapterCase) -> None:
        if not case.adapter.starts_as_identity:
            pytest.skip("says that it changes the features from the start")
        expected = case.plain(case.images)
        for task, levels in case.features().items():
            assert_alike(levels, expected, f"{task} does not start as the frozen backbone")

    def test_every_tap_serves_every_task_once(self, case: AdapterCase) -> None:
        levels = case.encoder(case.images)
        assert len(levels) == len(case.attachment.taps) == len(case.encoder.levels)
        for level, (path, streams) in zip(levels, case.attachment.taps.items(), strict=True):
            assert len(level) == len(streams) * len(case.images), f"{path}: {len(level)} rows for streams {streams}"
            assert set(streams.tasks) == set(TASKS), f"{path} serves {streams.tasks}"
        for path, streams in case.attachment.layouts.items():
            assert set(streams.carried.tasks) == set(TASKS), f"{path}: {streams} lost a task"

    def test_only_its_own_parameters_train(self, case: AdapterCase) -> None:
        pretrained = dict(case.plain.named_parameters())
        for name, parameter in case.encoder.named_parameters():
            plain = _plain_name(name)
            if plain in pretrained and parameter.requires_grad:
                allowed = any(plain.startswith(path) for path in case.trained)
                assert allowed, f"{name} is pretrained and trains, but neither an answer nor `attached` made it"

    def test_no_parameter_is_empty(self, case: AdapterCase) -> None:
        empty = [name for name, p in case.encoder.named_parameters() if p.numel() == 0]
        assert not empty, f"ZeRO-3 refuses empty parameters: {empty}"

    def test_every_pretrained_weight_keeps_its_place(self, case: AdapterCase) -> None:
        kept = {_plain_name(name): value for name, value in case.encoder.state_dict().items()}
        for name, value in case.plain.state_dict().items():
            assert name in kept, f"{name} has lost its place"
            assert torch.equal(kept[name], value), f"{name} has changed on attaching"

    def test_images_do_not_mix(self, trained: AdapterCase) -> None:
        both, one = trained.features(), trained.features(trained.images[1:])
        for task in TASKS:
            assert_alike([level[1:] for level in both[task]], one[task], "images of a batch mix")

    def test_tasks_differ_once_trained(self, trained: AdapterCase) -> None:
        apart = [
            (level, a, b)
            for level, streams in enumerate(trained.attachment.taps.values())
            for a, b in combinations(TASKS, 2)
            if streams.serving(a) != streams.serving(b)
        ]
        if not apart:
            pytest.skip("all tasks share one stream")
        features = trained.features()
        for level, a, b in apart:
            alike = torch.allclose(features[a][level], features[b][level])
            assert not alike, f"{a} and {b} have streams of their own at level {level}, but the same features"

    def test_every_trainable_moves_in_one_step(self, trained: AdapterCase) -> None:
        gradients = trained.gradients()
        names = {name for name, p in trained.encoder.named_parameters() if p.requires_grad}
        before = {name: p.detach().clone() for name, p in trained.encoder.named_parameters()}
        if not names:
            pytest.skip("trains nothing")
        assert gradients, "no trainable parameter gets a gradient"
        torch.optim.SGD(trained.trainable(), lr=1.0).step()
        for name, parameter in trained.encoder.named_parameters():
            moved = not torch.equal(parameter, before[name])
            assert moved == (name in gradients), f"{name} {'moves' if moved else 'gets a gradient of zeros'}"

    def test_frozen_parameters_do_not_move(self, trained: AdapterCase) -> None:
        before = {name: x.clone() for name, x in trained.encoder.state_dict().items()}
        trained.encoder.train()
        trained.gradients()
        torch.manual_seed(0)
        trained.features()
        for name, value in trained.encoder.state_dict().items():
            assert torch.equal(value, before[name]), f"{name} changes in a forward and backward pass"
        frozen = [name for name, p in trained.encoder.named_parameters() if not p.requires_grad and p.grad is not None]
        assert not frozen, f"frozen parameters got gradients: {frozen}"

    def test_private_parameters_hear_only_their_tasks(self, trained: AdapterCase) -> None:
        for task in TASKS:
            for name, gradient in trained.gradients((task,)).items():
                assert task in private_tasks(name, TASKS) or not gradient.any(), f"{name} hears {task}'s loss"

    def test_a_task_alone_is_the_same(self, trained: AdapterCase) -> None:
        whole = {task: [level.detach() for level in levels] for task, levels in trained.features().items()}
        for task in TASKS:
            trained.attachment.select([task])
            alone = trained.features()
            assert list(alone) == [task]
            assert_alike(alone[task], whole[task], f"{task} alone is not what it is among others")
        trained.attachment.select(TASKS)
        assert_alike(trained.features(), whole, "selecting all tasks again")

    def test_merged_weights_give_the_same_features(self, trained: AdapterCase) -> None:
        features = trained.features()
        for task in TASKS:
            try:
                merged = merge(trained.attachment, task)
            except MergeError as refusal:
                pytest.skip(str(refusal))
            assert_alike(merged.encoder(trained.images), features[task], f"merged for {task}")
            assert merged.encoder.state_dict().keys() == trained.plain.state_dict().keys()

    def test_saved_and_loaded_is_exact(self, make: Callable[..., AdapterCase], trained: AdapterCase) -> None:
        data = safetensors.torch.save({n: x.contiguous() for n, x in trained_state(trained.encoder).items()})
        again = make(seed=1)  # so that what is random and not saved shows
        load_trained(again.encoder, safetensors.torch.load(data), "saved")
        assert_alike(again.features(), trained.features(), "saved and loaded", tolerance=0)

    def test_activation_checkpointing_gives_the_same_gradients(self, trained: AdapterCase) -> None:
        gradients = []
        trained.encoder.train()
        for checkpointing in (False, True):
            trained.encoder.checkpointing = checkpointing
            torch.manual_seed(0)
            gradients.append(trained.gradients())
        assert_alike(gradients[1], gradients[0], "gradients with activation checkpointing")

    def test_bf16_gives_nearly_the_same_gradients(self, make: Callable[..., AdapterCase]) -> None:
        case = make(moved=0.01, dtype=torch.float32)
        exact = case.gradients()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = case.gradients()
        assert rough.keys() == exact.keys()
        if exact:
            a, b = (torch.cat([g.flatten() for g in found.values()]) for found in (exact, rough))
            assert torch.cosine_similarity(a, b, dim=0) > 0.95, "gradients under bf16 autocast point elsewhere"

    def test_compiles_as_one_graph(self, trained: AdapterCase) -> None:
        torch._dynamo.reset()
        compiled: Any = torch.compile(trained.encoder, fullgraph=True, backend="eager")
        with torch.no_grad():
            assert_alike(compiled(trained.images), trained.encoder(trained.images), "compiled")


def _plain_name(name: str) -> str:
    """The name a parameter has in the plain backbone, if it came from there."""
    return name.replace(".base.", ".").removeprefix("base.")

"""What an adapter may do when all sites are answered: train what is no site, share parameters, refuse the encoder."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from mt_core.accounting import count_parameters
from mt_core.adapter import Adapter, SiteModule
from mt_core.artefact import load_trained, trained_state
from mt_core.attachment import attach
from mt_core.backbone import Encoder
from mt_core.errors import ConfigError
from mt_core.model import MultiTaskModel
from mt_core.site import Role, Site
from mt_core.streams import Streams
from mt_core.tasks import Depth, Segmentation

from .toys import ToyBackbone, ToyDecoder, ToyEncoder

SIZE = (16, 24)


class Scaled(SiteModule):
    """y (1 + g), where g may belong to several sites."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__(base)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) * (1 + self.gain)  # type: ignore[no-any-return]


@dataclass
class OneGain(Adapter):
    """The same gain at every proj."""

    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        return Scaled(module) if site.role is Role.proj else None

    def attached(self, encoder: Encoder) -> None:
        first, *others = (module for module in encoder.modules() if isinstance(module, Scaled))
        for module in others:
            module.gain = first.gain


@dataclass
class Biases(Adapter):
    def adapt(self, site: Site, module: nn.Module, streams: Streams) -> nn.Module | None:
        return None

    def attached(self, encoder: Encoder) -> None:
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_(name.endswith(".bias"))


@dataclass
class Refusing(Biases):
    def attached(self, encoder: Encoder) -> None:
        raise ConfigError("there is nothing for it here")


def model() -> MultiTaskModel:
    torch.manual_seed(0)
    return MultiTaskModel(ToyEncoder(), OneGain(), ToyDecoder(), [Segmentation("semseg", 3), Depth("depth", 1)])


def gains(encoder: nn.Module) -> list[nn.Parameter]:
    return [module.gain for module in encoder.modules() if isinstance(module, Scaled)]


def test_what_is_no_site_may_be_trained() -> None:
    encoder = ToyEncoder()
    attach(Biases(), encoder, ["semseg"])
    trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in encoder.named_parameters() if name.endswith(".bias")}
    assert trained


def test_it_may_refuse() -> None:
    with pytest.raises(ConfigError, match="there is nothing for it"):
        attach(Refusing(), ToyBackbone.miniature()[0], ["semseg"])


def test_a_parameter_that_sites_share_is_counted_once() -> None:
    found = model()
    assert len(gains(found.encoder)) == 2
    counts = count_parameters(found, SIZE)
    assert counts.groups["adapter"].trainable == counts.groups["adapter"].live == 1
    assert counts.total == sum(p.numel() for p in found.parameters())


def test_it_is_saved_once_and_loaded_everywhere() -> None:
    before, after = model(), model()
    gains(before.encoder)[1].data.fill_(0.5)
    state = trained_state(before)
    assert sum(name.endswith("gain") for name in state) == 1
    load_trained(after, {name: value.clone() for name, value in state.items()}, "saved")
    assert [float(gain.detach()) for gain in gains(after.encoder)] == [0.5, 0.5]
    assert gains(after.encoder)[0] is gains(after.encoder)[1]

"""Every registered decoder keeps the contract on every registered backbone."""

from __future__ import annotations

import pytest

from mt_core import registry
from mt_core.tasks import Segmentation
from mt_core.testing import DecoderConformance
from mt_core.testing.miniatures import architectures

for _name in registry("decoders"):
    globals()[f"Test_{_name}"] = type(f"Test_{_name}", (DecoderConformance,), {"entry": _name})


OURS = ("hrnet", "aspp", "segformer")


def test_the_decoders_of_the_papers_are_among_them() -> None:
    assert {f"Test_{name}" for name in OURS} <= globals().keys()


@pytest.mark.parametrize("backbone", architectures())
@pytest.mark.parametrize("name", OURS)
def test_cores_own_read_every_backbone(name: str, backbone: str) -> None:
    encoder, images = architectures()[backbone].miniature()
    assert registry("decoders")[name]().build(Segmentation("semseg", 3), encoder)(encoder(images)).shape[:2] == (2, 3)

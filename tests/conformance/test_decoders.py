"""Every registered decoder keeps the contract on every registered backbone."""

from __future__ import annotations

from mt_core import registry
from mt_core.testing import DecoderConformance

for _name in registry("decoders"):
    globals()[f"Test_{_name}"] = type(f"Test_{_name}", (DecoderConformance,), {"entry": _name})


def test_the_decoder_of_the_papers_is_among_them() -> None:
    assert "Test_hrnet" in globals()

"""Every registered backbone tells the truth about its sites."""

from __future__ import annotations

from mt_core.testing import BackboneConformance
from mt_core.testing.miniatures import architectures

for _name, _backbone in architectures().items():
    globals()[f"Test_{_name}"] = type(f"Test_{_name}", (BackboneConformance,), {"entry": _backbone})


def test_every_architecture_is_checked() -> None:
    assert all(f"Test_{name}" in globals() for name in architectures())

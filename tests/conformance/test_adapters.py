"""Every registered adapter keeps the contract on every registered backbone."""

from __future__ import annotations

from mt_core import registry
from mt_core.testing import AdapterConformance

for _name in registry("adapters"):
    globals()[f"Test_{_name}"] = type(f"Test_{_name}", (AdapterConformance,), {"entry": _name})


def test_the_frozen_reference_is_always_among_them() -> None:
    assert "Test_frozen" in globals()

"""Every registered adapter keeps the contract on every registered backbone.

Compiling takes longest: the papers' methods are, all others with MT_EXHAUSTIVE=1.
"""

from __future__ import annotations

import os

from mt_core import registry
from mt_core.testing import AdapterConformance

COMPILED = ("mtlora", "mtlora_plus", "tora", "tglora", "vmt", "vmt_lite")

for _name in registry("adapters"):
    _own: dict[str, object] = {"entry": _name}
    if _name not in COMPILED and os.environ.get("MT_EXHAUSTIVE") != "1":
        _own["test_compiles_as_one_graph"] = None
    globals()[f"Test_{_name}"] = type(f"Test_{_name}", (AdapterConformance,), _own)


def test_the_frozen_reference_is_always_among_them() -> None:
    assert "Test_frozen" in globals()

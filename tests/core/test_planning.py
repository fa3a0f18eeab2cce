"""A model's plan reaches its adapter, and no other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mt_core.build import ModelSpec, build
from mt_core.errors import ConfigError

SPEC = {
    "backbone": {"name": "swin_nano", "options": {}},
    "adapter": {"name": "frozen", "options": {}},
    "decoder": {"name": "hrnet", "options": {}},
    "tasks": [],
    "image_size": [32, 32],
}


def test_a_description_without_a_plan_is_read_and_written() -> None:
    spec = ModelSpec.from_json(SPEC)
    assert spec.plan == {}
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_a_plan_for_an_adapter_that_takes_none_is_refused() -> None:
    pytest.importorskip("mt_backbones_swin", reason="the description names a backbone of mt-backbones-swin")
    with pytest.raises(ConfigError, match="adapter frozen takes no plan, but one is given"):
        build(replace(ModelSpec.from_json(SPEC), plan={"groups": []}), "meta")

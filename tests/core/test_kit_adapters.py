"""The kit's contract of adapters: for each property something that breaks it, and only it."""

from __future__ import annotations

from typing import Any

import pytest

from mt_core.adapter import Adapter
from mt_core.testing import AdapterCase, AdapterConformance

from .broken_adapters import (
    BROKEN,
    COMPILES,
    LAYOUT,
    SOUND,
    AnnouncesAForkOnly,
    AsksForAValue,
    ForksUnannounced,
    at_proj,
    streamed,
)
from .contracts import failures, properties
from .toys import TaskLoRA, ToyBackbone


def adapter_failures(adapter: Adapter, without: str = "") -> set[str]:
    def make(**how: Any) -> AdapterCase:
        return AdapterCase(adapter, ToyBackbone, **how)

    fixtures = {"case": make, "trained": lambda: make(moved=0.1), "make": lambda: make}
    return failures(AdapterConformance(), fixtures, without)


@pytest.mark.parametrize("adapter", SOUND.values(), ids=SOUND)
def test_a_sound_adapter_passes(adapter: Adapter) -> None:
    assert adapter_failures(adapter) == set()


@pytest.mark.parametrize(("adapter", "expected"), BROKEN.values(), ids=BROKEN)
def test_a_broken_adapter_fails_what_it_breaks_and_nothing_else(adapter: Adapter, expected: set[str]) -> None:
    assert adapter_failures(adapter, without=COMPILES) == expected


def test_a_module_that_asks_for_a_value_fails_to_compile_only() -> None:
    assert adapter_failures(at_proj(AsksForAValue)) == {COMPILES}


@pytest.mark.parametrize("module", [ForksUnannounced, AnnouncesAForkOnly])
def test_a_layout_that_is_not_delivered_fails(module: type[TaskLoRA]) -> None:
    assert LAYOUT in adapter_failures(streamed(module), without=COMPILES)


def test_every_property_of_an_adapter_has_something_that_breaks_it() -> None:
    broken = set().union(*(expected for _, expected in BROKEN.values()))
    assert properties(AdapterConformance) - broken == {COMPILES, LAYOUT}, "these two have tests of their own"

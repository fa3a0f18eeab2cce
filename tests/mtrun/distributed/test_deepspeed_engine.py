"""What the engine for several ranks refuses, and how it speaks."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
import torch

from mt_core.errors import ConfigError
from mtrun.deepspeed_engine import DeepSpeedEngine
from mtrun.deepspeed_start import image_size_of
from mtrun.recipe import TrainerOptions

from ..conftest import TINY, Mtrun
from .conftest import Run
from .runs import TINY as SMALL


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stage": 4}, "engine.stage=4: ZeRO has the stages 0, 1, 2 and 3"),
        ({"stage": -1}, "engine.stage=-1: ZeRO has the stages"),
        ({"offload_optimizer": True}, "engine.offload_optimizer=true needs engine.stage=1, 2 or 3"),
        ({"stage": 2, "offload_parameters": True}, "engine.offload_parameters=true needs engine.stage=3; it is 2"),
        ({"stage": 2, "bucket": 0}, "engine.bucket=0: expected a number of elements, at least 1"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        DeepSpeedEngine(**options)


def test_a_batch_that_cannot_be_dealt_out_evenly_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"batch_size=6 is for all ranks together, and cannot be dealt out to 4 of"):
        DeepSpeedEngine().refuse(TrainerOptions(batch_size=6), 4)
    DeepSpeedEngine().refuse(TrainerOptions(batch_size=6), 3)


def test_compiling_dealt_out_parameters_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainer.compile=true at engine.stage=3: parameters that come and go"):
        DeepSpeedEngine(stage=3).refuse(TrainerOptions(compile=True), 1)


def test_without_deepspeed_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch, mtrun: Mtrun) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(ConfigError, match=r"engine=deepspeed needs DeepSpeed, .* pip install 'mtrun\[deepspeed\]'"):
        DeepSpeedEngine().refuse(TrainerOptions(), 1)
    found = mtrun(*TINY, "engine=deepspeed")
    assert found.code == 2, found.err
    assert "pip install 'mtrun[deepspeed]'" in " ".join(found.err.split())


def test_a_model_that_was_put_together_by_hand_is_refused() -> None:
    class ByHand(torch.nn.Module):
        origin = None

    with pytest.raises(ConfigError, match=r"engine=deepspeed wants a model that mt_core\.build made"):
        image_size_of(ByHand())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["balancer=pcgrad", "trainer.accumulate=2"], "gradients accumulated over trainer.accumulate=2 batches"),
        (["engine=deepspeed", "engine.stage=5"], "engine.stage=5: ZeRO has the stages 0, 1, 2 and 3"),
        (["engine=deepspeed", "engine.stage=1", "engine.offload_parameters=true"], "needs engine.stage=3; it is 1"),
    ],
)
def test_combinations_that_cannot_be_right_end_with_exit_2(words: list[str], message: str, mtrun: Mtrun) -> None:
    found = mtrun(*TINY, "trainer.max_steps=1", *words)
    assert found.code == 2, found.err
    assert message in " ".join(found.err.split())


def test_gradients_that_are_taken_apart_are_refused_where_they_are_dealt_out(run: Run) -> None:
    found = run(2, *SMALL, "engine=deepspeed", "engine.stage=2", "balancer=pcgrad")
    assert "which ZeRO cannot partition: with engine.stage=2" in " ".join(found.err.split())


SCRIPT = """
import sys, torch
from mtrun.deepspeed_engine import DeepSpeedEngine
from mtrun.deepspeed_start import started
from mtrun.recipe import TrainerOptions
DeepSpeedEngine().refuse(TrainerOptions(), 1)
deepspeed = started(torch.device("cpu"))
x = torch.ones(1)
torch.distributed.all_gather_into_tensor(x, x.clone())
deepspeed.utils.logger.warning("a warning")
deepspeed.utils.logger.error("an error")
"""


def test_deepspeed_says_nothing_but_errors_and_these_on_stderr() -> None:
    found = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    assert found.stdout == ""
    assert re.fullmatch(r"\[.*\] \[ERROR\] .* an error\n", found.stderr)

"""What processes compute together of parts of a batch is what one computes of all of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mt_core.decoders.aspp import PooledBatchNorm
from mt_core.distributed import everywhere, is_dealt_out, processes, synchronise_batch_norms

SCRIPT = Path(__file__).with_name("distributed_rank.py")
PARTS = ["batch norm", "without affine", "cumulative", "without statistics", "of vectors", "pooled"]
PARTS += ["balanced", "objective", "words"]


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """How far two processes are from one, as the second one says."""
    folder = tmp_path_factory.mktemp("ranks")
    files = [str(folder / "rendezvous"), str(folder / "found.json")]
    command = [sys.executable, str(SCRIPT)]
    processes = [subprocess.Popen([*command, str(rank), "2", *files], stderr=subprocess.PIPE) for rank in range(2)]
    errors = [process.communicate(timeout=300)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    found: dict[str, dict[str, float]] = json.loads((folder / "found.json").read_text())
    return found


@pytest.mark.parametrize("what", PARTS)
def test_two_processes_find_what_one_finds(apart: dict[str, dict[str, float]], what: str) -> None:
    assert apart[what]
    assert {name: distance for name, distance in apart[what].items() if not distance < 1e-12} == {}


def test_every_part_is_looked_at(apart: dict[str, dict[str, float]]) -> None:
    assert sorted(apart) == sorted(PARTS)
    assert {"gradient of weight", "running_var", "num_batches_tracked", "evaluation"} <= apart["batch norm"].keys()


def test_a_process_alone_needs_no_group() -> None:
    x = torch.ones(2)
    assert (everywhere(x) is x, is_dealt_out(), processes()) == (True, False, 1)
    norm = nn.Sequential(nn.BatchNorm2d(3))
    expected = norm(torch.arange(24.0).view(2, 3, 2, 2))
    synchronise_batch_norms(norm)
    assert torch.equal(norm(torch.arange(24.0).view(2, 3, 2, 2)), expected)


def test_a_synchronised_norm_is_still_of_its_kind_and_keeps_its_names() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), PooledBatchNorm(3), nn.LayerNorm(3))
    before = model.state_dict().keys()
    for _ in range(2):
        synchronise_batch_norms(model)
    assert [type(module).__name__ for module in model] == [
        "SynchronisedBatchNorm2d", "SynchronisedPooledBatchNorm", "LayerNorm",
    ]  # fmt: skip
    assert isinstance(model[1], PooledBatchNorm)
    assert model.state_dict().keys() == before

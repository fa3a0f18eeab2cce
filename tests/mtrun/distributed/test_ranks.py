"""What several ranks cannot do, and what one says that has lost another."""

from __future__ import annotations

import pytest

from mt_core.errors import ConfigError
from mtrun.job import device_of
from mtrun.places import Place
from mtrun.ranks import LostError, _losing

from ..conftest import TINY, Mtrun


def test_a_lost_rank_is_said_in_one_line() -> None:
    with pytest.raises(LostError, match=r"^another rank cannot be reached: Connection closed$"), _losing():
        raise RuntimeError("Connection closed\nat gloo/transport")


def test_a_device_for_all_ranks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainer.device='cuda:1' with 2 ranks: each takes its own; use cuda"):
        device_of("cuda:1", Place(0, 2, 0, 2, "127.0.0.1", 1))


def test_a_sweep_of_ranks_that_were_started_outside_is_refused(mtrun: Mtrun, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    found = mtrun(*TINY, "--multirun", "seed=1,2")
    assert found.code == 2
    assert "a sweep with ranks that were started outside" in " ".join(found.err.split())

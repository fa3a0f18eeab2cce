"""Which of several processes this one is, as launchers say it."""

from __future__ import annotations

import pytest

from mt_core.errors import ConfigError
from mtrun.places import Place, place, without_local_rank
from mtrun.recipe import LaunchOptions

TORCHRUN = {
    "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "node7", "MASTER_PORT": "29400",
}  # fmt: skip
SRUN = {
    "SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "gpu[03-04]", "SLURM_JOB_ID": "123456",
}  # fmt: skip


def without(environment: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in names}


def test_a_process_that_nobody_started_as_one_of_several_is_alone() -> None:
    assert place({"PATH": "/bin", "LOCAL_RANK": "0"}) is None


def test_one_of_one_is_alone() -> None:
    assert place({**TORCHRUN, "RANK": "0", "WORLD_SIZE": "1"}) is None
    assert place({**SRUN, "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}) is None


def test_torchrun_says_it_all() -> None:
    assert place(TORCHRUN) == Place(5, 8, 1, 4, "node7", 29400)


def test_the_deepspeed_launcher_does_not_say_how_many_are_on_this_host() -> None:
    found = place({**without(TORCHRUN, "LOCAL_WORLD_SIZE"), "RANK": "1", "WORLD_SIZE": "2"})
    assert found == Place(1, 2, 1, 2, "node7", 29400)


def test_srun_says_it_by_slurms_names() -> None:
    assert place(SRUN) == Place(5, 8, 1, 4, "gpu03", 20000 + 123456 % 20000)


def test_all_ranks_of_a_job_find_the_same_port() -> None:
    ports = {place({**SRUN, "SLURM_PROCID": str(rank)}).port for rank in range(8)}  # type: ignore[union-attr]
    assert len(ports) == 1


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("one", "one"), ("one,two", "one"), ("node[03-06,9],other", "node03"), ("a-b[1,3]", "a-b1"), ("n[10]", "n10"),
        ("x.site.org,y", "x.site.org"), ("", "127.0.0.1"),
    ],
)  # fmt: skip
def test_rank_0_is_on_the_first_of_slurms_nodes(nodes: str, first: str) -> None:
    found = place({**SRUN, "SLURM_STEP_NODELIST": nodes})
    assert found is not None
    assert found.address == first


def test_an_address_that_is_given_goes_before_slurms() -> None:
    found = place({**SRUN, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"})
    assert found is not None
    assert (found.address, found.port) == ("10.0.0.1", 1234)


def test_without_a_local_number_ranks_are_dealt_out_host_by_host() -> None:
    found = place(without(SRUN, "SLURM_LOCALID"))
    assert found is not None
    assert (found.local, found.local_world) == (1, 4)


def test_a_batch_script_without_srun_is_one_process() -> None:
    assert place(without(SRUN, "SLURM_STEP_ID")) is None


def test_torchrun_within_a_step_of_srun_goes_before_it() -> None:
    assert place({**SRUN, **TORCHRUN}) == place(TORCHRUN)


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"])
def test_what_is_no_number_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name}='two' in the environment: expected a whole number"):
        place({**TORCHRUN, name: "two"})


@pytest.mark.parametrize(("rank", "world"), [("8", "8"), ("-1", "8"), ("0", "0"), ("3", "-2")])
def test_a_rank_that_cannot_be_is_refused(rank: str, world: str) -> None:
    with pytest.raises(ConfigError, match=rf"RANK={rank} and WORLD_SIZE={world} cannot be: ranks count from 0"):
        place({**TORCHRUN, "RANK": rank, "WORLD_SIZE": world})


def test_what_the_deepspeed_launcher_appends_never_reaches_the_configuration() -> None:
    words = ["train", "--local_rank=1", "launch.ranks=2", "--local-rank=0", "--json"]
    assert without_local_rank(words) == ["train", "launch.ranks=2", "--json"]
    assert without_local_rank(["local_rank=1", "--local_rank=x"]) == ["local_rank=1", "--local_rank=x"]


@pytest.mark.parametrize(
    ("name", "value", "lowest"), [("ranks", 0, 1), ("ranks", -3, 1), ("timeout", -1.0, 0), ("grace", -0.5, 0)]
)
def test_options_of_the_launch_are_bounded(name: str, value: float, lowest: int) -> None:
    with pytest.raises(ConfigError, match=rf"launch\.{name}={value}: expected at least {lowest}"):
        LaunchOptions(**{name: value})  # type: ignore[arg-type]

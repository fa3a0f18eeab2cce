"""Weights: read without running anything, matched key by key, and identified by a hash."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pluggy
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mt_core import hookspecs, weights
from mt_core.discovery import Plugins
from mt_core.errors import CheckpointError
from mt_core.weights import load_into, read_state, state_hash

STATE = {"a.weight": torch.arange(12.0).view(3, 4), "a.bias": torch.arange(3)}


class Code:
    """What a malicious checkpoint holds: unpickling it runs a command."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, ("pickled-code-ran",)


def save(path: Path, value: Any, **how: Any) -> str:
    torch.save(value, path, **how)
    return str(path)


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], x) for name, x in expected.items())


@pytest.mark.parametrize("how", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
def test_a_torch_file_is_read(tmp_path: Path, how: dict[str, Any]) -> None:
    assert same(read_state(save(tmp_path / "w.pth", STATE, **how)), STATE)


def test_a_safetensors_file_is_read(tmp_path: Path) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "w.safetensors")
    assert same(read_state(str(tmp_path / "w.safetensors")), STATE)


@pytest.mark.parametrize(
    "wrapped", [{"model": STATE, "epoch": 3}, {"state_dict": STATE}, {"model": {"state_dict": STATE}}]
)
def test_a_state_dict_inside_a_training_checkpoint_is_unwrapped(tmp_path: Path, wrapped: dict[str, Any]) -> None:
    assert same(read_state(save(tmp_path / "w.pth", wrapped)), STATE)


@pytest.mark.parametrize("value", [{}, [1.0], {"a": 3}, {"a": {"b": torch.ones(1)}}, torch.ones(3), {0: torch.ones(1)}])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(CheckpointError, match="expected a state dict of names and tensors, found"):
        read_state(save(tmp_path / "w.pth", value))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"w.pth: no such file, and no plugin knows it; give a weights file"):
        read_state(str(tmp_path / "w.pth"))


def _torch_code(path: Path) -> None:
    torch.save({"model": STATE, "args": Code()}, path)


def _legacy_code(path: Path) -> None:
    torch.save({"args": Code()}, path, _use_new_zipfile_serialization=False)


def _bare_code(path: Path) -> None:
    path.write_bytes(pickle.dumps(Code(), protocol=2))


@pytest.mark.parametrize("write", [_torch_code, _legacy_code, _bare_code])
def test_pickled_code_is_refused_and_does_not_run(
    tmp_path: Path, write: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"refused, it holds more than tensors .*\.mkdir\), .* re-save it as"):
        read_state("w.pth")
    assert not (tmp_path / "pickled-code-ran").exists()


def test_the_refusal_does_not_repeat_torchs_advice_to_run_it(tmp_path: Path) -> None:
    _torch_code(tmp_path / "w.pth")
    with pytest.raises(CheckpointError) as caught:
        read_state(str(tmp_path / "w.pth"))
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"<html>", b"version https://git-lfs.github.com/spec/v1\n", b"PK\x03\x04"])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_what_is_no_weights_file_is_refused_with_its_size(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name} \({len(content)} bytes\) cannot be read, it is truncated or"):
        read_state(str(tmp_path / name))


FILES = [("w.pth", {}), ("w.pth", {"_use_new_zipfile_serialization": False}), ("w.safetensors", {})]


@pytest.fixture(scope="module", params=FILES, ids=["zip", "legacy", "safetensors"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name, how = request.param
    path: Path = tmp_path_factory.mktemp("weights") / name
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(STATE, path)
    else:
        torch.save(STATE, path, **how)
    return path


@given(part=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(whole: Path, part: float) -> None:
    data = whole.read_bytes()
    damaged = whole.with_stem("damaged")
    damaged.write_bytes(data[: int(part * len(data))])
    with pytest.raises(CheckpointError, match=r"it is truncated or not a weights file|more than tensors or is damaged"):
        read_state(str(damaged))


@pytest.mark.filterwarnings("ignore")  # torch warns of odd protocols on its way
@given(where=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=3))
def test_a_damaged_file_is_refused_or_gives_tensors_but_never_crashes(
    whole: Path, where: list[tuple[float, int]]
) -> None:
    data = bytearray(whole.read_bytes())
    for part, value in where:
        data[int(part * len(data))] = value
    damaged = whole.with_stem("damaged")
    damaged.write_bytes(data)
    try:
        state = read_state(str(damaged))
    except CheckpointError:
        return
    assert all(isinstance(value, Tensor) for value in state.values())


def test_a_plugin_may_know_where_weights_are(monkeypatch: pytest.MonkeyPatch) -> None:
    class Knows:
        @hookspecs.hookimpl
        def mt_weights(self, uri: str) -> dict[str, Tensor] | None:
            return STATE if uri == "hub:toy" else None

    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(Knows())
    monkeypatch.setattr(weights, "plugins", lambda: Plugins(manager, {}))
    assert same(read_state("hub:toy"), STATE)
    with pytest.raises(CheckpointError, match="hub:other: no such file, and no plugin knows it"):
        read_state("hub:other")


def test_matching_weights_are_copied() -> None:
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    load_into(model, other.state_dict(), "checkpoint x")
    assert same(dict(model.state_dict()), dict(other.state_dict()))


MISFITS = {
    "a key too few": (
        {"weight": torch.zeros(2, 3)},
        r"checkpoint x does not fit this model: 1 keys \(bias\) missing, no key unexpected; is it for another backbone",
    ),
    "keys too many": (
        {**nn.Linear(3, 2).state_dict(), **{f"head.{i}": torch.zeros(1) for i in range(5)}},
        r"no key missing, 5 keys \(head.0, head.1, head.2, ...\) unexpected",
    ),
    "another shape": (
        {"weight": torch.zeros(2, 4), "bias": torch.zeros(2)},
        r"weight has shape \(2, 4\), expected \(2, 3\); is it for another backbone, size or number of tasks",
    ),
}


@pytest.mark.parametrize(("state", "message"), MISFITS.values(), ids=MISFITS)
def test_weights_of_another_model_are_refused_and_nothing_is_copied(state: dict[str, Tensor], message: str) -> None:
    model = nn.Linear(3, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_into(model, state, "checkpoint x")
    assert same(dict(model.state_dict()), before)


def test_the_hash_is_of_the_contents() -> None:
    reordered = dict(reversed(STATE.items()))
    strided = {name: value.T.contiguous().T if value.dim() == 2 else value for name, value in STATE.items()}
    assert state_hash(STATE) == state_hash(reordered) == state_hash(strided)


@pytest.mark.parametrize(
    "other",
    [
        {**STATE, "a.bias": torch.tensor([0, 1, 3])},
        {**STATE, "a.weight": STATE["a.weight"].view(4, 3)},
        {**STATE, "a.bias": STATE["a.bias"].to(torch.int32)},
        {"b.weight": STATE["a.weight"], "a.bias": STATE["a.bias"]},
        {**STATE, "empty": torch.empty(0)},
    ],
    ids=["value", "shape", "type", "name", "one more"],
)
def test_the_hash_sees_every_difference(other: dict[str, Tensor]) -> None:
    assert state_hash(other) != state_hash(STATE)


def test_scalars_and_half_precision_have_a_hash() -> None:
    assert state_hash({"t": torch.tensor(1.0)}) != state_hash({"t": torch.tensor(2.0)})
    assert state_hash({"t": torch.ones(3, dtype=torch.bfloat16)}) != state_hash({"t": torch.ones(3)})

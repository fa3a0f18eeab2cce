"""Artefacts and checkpoints that want to do harm: nothing runs, nothing is written, nothing fills the memory."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from mt_core.artefact import CONFIG, MANIFEST, WEIGHTS, load
from mt_core.errors import CheckpointError, ConfigError, MTError
from mt_core.files import sha256
from mt_core.weights import read_state

Attack = Callable[[Path], None]


class Code:
    """Whoever unpickles it makes a folder."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, ("ran",)


def forge(folder: Path, name: str, data: bytes) -> None:
    """Replace a file, and make the manifest agree: whoever wants to do harm can compute a sum."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = {"sha256": sha256(folder / name), "bytes": len(data)}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def description(**changes: Any) -> Attack:
    """Other values in the model's description."""

    def attack(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        config["model"] |= changes
        forge(folder, CONFIG, json.dumps(config).encode())

    return attack


def text_in_description(old: str, new: str) -> Attack:
    def attack(folder: Path) -> None:
        text = (folder / CONFIG).read_text()
        assert old in text
        forge(folder, CONFIG, text.replace(old, new).encode("utf-8", "surrogatepass"))

    return attack


def weights(data: bytes) -> Attack:
    return lambda folder: forge(folder, WEIGHTS, data)


def manifest(change: Callable[[Any], Any]) -> Attack:
    def attack(folder: Path) -> None:
        path = folder / MANIFEST
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return attack


def another_file(name: str) -> Attack:
    """A manifest that speaks of a file elsewhere, with its right sum."""

    def change(values: Any) -> Any:
        values["files"][name] = values["files"].pop(WEIGHTS)
        return values

    return manifest(change)


def in_place_of(name: str, put: Callable[[Path], Any]) -> Attack:
    def attack(folder: Path) -> None:
        (folder / name).unlink()
        put(folder / name)

    return attack


def header(size: int, text: bytes = b"") -> bytes:
    """A safetensors file that says how long its header is."""
    return struct.pack("<Q", size) + text


def tensors(entries: dict[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return header(len(text), text) + data


def entry(shape: list[int], offsets: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def task(**changes: Any) -> Attack:
    first = {"kind": "depth", "name": "depth", "channels": 1, "classes": [], "loss_name": ""}
    return description(tasks=[{**first, **changes}])


ARTEFACTS: dict[str, tuple[Attack, str]] = {
    "a pickle in place of weights": (weights(pickle.dumps(Code(), protocol=2)), WEIGHTS),
    "a header of exabytes": (weights(header(2**63)), WEIGHTS),
    "a header of 99 MB that is not there": (weights(header(99_000_000)), WEIGHTS),
    "a header of brackets": (weights(header(1_000_000, b"[" * 1_000_000)), WEIGHTS),
    "a tensor of exabytes": (weights(tensors(entry([2**40, 2**20], [0, 2**62]))), WEIGHTS),
    "a tensor whose size overflows": (weights(tensors(entry([2**33, 2**33], [0, 4]), b"1234")), WEIGHTS),
    "tensors that overlap": (
        weights(tensors({"x": entry([1], [0, 4])["x"], "y": entry([1], [0, 4])["x"]}, b"1234")),
        WEIGHTS,
    ),
    "a type that is none": (weights(tensors(entry([1], [0, 4], "PICKLE"), b"1234")), WEIGHTS),
    "a path up in the manifest": (another_file("../../etc/passwd"), MANIFEST),
    "an absolute path in the manifest": (another_file("/etc/passwd"), MANIFEST),
    "a folder in the manifest": (another_file("."), MANIFEST),
    "brackets without end": (lambda folder: forge(folder, CONFIG, b"[" * 1_000_000), CONFIG),
    "objects without end": (lambda folder: forge(folder, CONFIG, b'{"a":' * 100_000), CONFIG),
    "a number of a million digits": (text_in_description('"seed": 5', f'"seed": {"9" * 1_000_000}'), CONFIG),
    "not a number": (text_in_description('"seed": 5', '"seed": NaN'), CONFIG),
    "an infinite number": (text_in_description('"seed": 5', '"seed": 1e999'), CONFIG),
    "bytes that are no text": (lambda folder: forge(folder, CONFIG, b'{"format": "\xff\xfe"}'), CONFIG),
    "half a letter": (text_in_description('"depth"', '"dep\udc80th"'), CONFIG),
    "a class to instantiate": (description(_target_="os.system", _args_=["mkdir ran"]), CONFIG),
    "a class as an option": (
        description(adapter={"name": "toy_lora", "options": {"_target_": "os.mkdir", "path": "ran"}}),
        CONFIG,
    ),
    "a module as a name": (description(adapter={"name": "os:mkdir", "options": {}}), CONFIG),
    "options in a list": (description(adapter={"name": "toy_lora", "options": ["ran"]}), CONFIG),
    "an option of another type": (description(adapter={"name": "toy_lora", "options": {"rank": "3"}}), CONFIG),
    "a rank that fills the memory": (description(adapter={"name": "toy_lora", "options": {"rank": 10**12}}), WEIGHTS),
    "a rank below nothing": (description(adapter={"name": "toy_lora", "options": {"rank": -1}}), CONFIG),
    "a width that overflows": (description(backbone={"name": "toy", "options": {"width": 2**62}}), CONFIG),
    "pictures that fill the memory": (description(image_size=[80_000_000, 80_000_000]), CONFIG),
    "pictures below nothing": (description(image_size=[-8, 16]), CONFIG),
    "a seed beyond 64 bits": (description(seed=2**80), CONFIG),
    "a task that is a path": (task(name="../../ran"), CONFIG),
    "a task that is an absolute path": (task(name="/ran"), CONFIG),
    "a task of a trillion channels": (task(kind="segmentation", channels=10**12), CONFIG),
    "a kind that is no text": (task(kind=["depth"]), CONFIG),
    "a plan for an adapter without": (description(plan={"_target_": "os.mkdir"}), CONFIG),
    "no task at all": (description(tasks=[]), CONFIG),
    "a pipe": (in_place_of(MANIFEST, os.mkfifo), ""),
    "a pipe as the description": (in_place_of(CONFIG, os.mkfifo), CONFIG),
    "a link to itself": (in_place_of(WEIGHTS, lambda path: path.symlink_to(path)), WEIGHTS),
    "a link to a device": (in_place_of(WEIGHTS, lambda path: path.symlink_to("/dev/zero")), WEIGHTS),
    "a folder in place of a file": (in_place_of(CONFIG, Path.mkdir), CONFIG),
}


@pytest.fixture
def stays_as_it_is(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within a test, nothing may appear beside the artefact."""
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    yield
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.usefixtures("stays_as_it_is")
@pytest.mark.parametrize(("attack", "named"), ARTEFACTS.values(), ids=ARTEFACTS)
def test_a_hostile_artefact_is_refused_naming_its_file(folder: Path, attack: Attack, named: str) -> None:
    attack(folder)
    with pytest.raises(MTError) as caught:
        load(folder)
    assert caught.value.exit_code in (2, 4)
    assert f"{folder.name}/{named}" in str(caught.value) or not named
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 2000


def test_what_cannot_be_built_says_so(folder: Path) -> None:
    description(seed=2**80)(folder)
    with pytest.raises(CheckpointError, match=f"{CONFIG} describes no model that can be built: "):
        load(folder)
    description(seed=0, adapter={"name": "toy_lora", "options": {"rank": "3"}})(folder)
    with pytest.raises(ConfigError, match=f"{CONFIG} asks for what cannot be: adapter toy_lora: rank='3': expected"):
        load(folder)
    description(image_size=[80_000_000, 8])(folder)
    with pytest.raises(CheckpointError, match=r"image_size=\[80000000, 8\]: expected \[height, width\] in pixels, up"):
        load(folder)
    text_in_description("[80000000,", "[NaN,")
    text_in_description("80000000", "NaN")(folder)
    with pytest.raises(CheckpointError, match=f"{CONFIG} cannot be read: NaN is not a finite number"):
        load(folder)
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).mkdir()
    from mt_core.artefact import read_spec

    with pytest.raises(CheckpointError, match=f"{MANIFEST} cannot be read: it is missing, or no file"):
        read_spec(folder)


def bomb(path: Path) -> None:
    """A torch file, compressed: 20 kB that unpack to 20 MB."""
    torch.save({"x": torch.zeros(5_000_000)}, path.with_suffix(".plain"))
    with zipfile.ZipFile(path.with_suffix(".plain")) as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for item in plain.infolist():
            out.writestr(item.filename, plain.read(item))
    path.with_suffix(".plain").unlink()


def overlapping(path: Path) -> None:
    """A hundred entries that are all the same bytes of the file."""
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("archive/data.pkl", b"0" * 10_000)
        first = out.infolist()[0]
        for i in range(100):
            again = zipfile.ZipInfo(f"archive/data/{i}")
            again.file_size = again.compress_size = first.file_size
            again.CRC, again.header_offset = first.CRC, first.header_offset
            out.filelist.append(again)
        out._didModify = True  # type: ignore[attr-defined]


CHECKPOINTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a zip bomb": (bomb, "bytes that unpack to"),
    "a zip bomb of overlapping files": (overlapping, "bytes that unpack to"),
    "code in a zip file": (lambda path: torch.save({"x": Code()}, path), "holds more than tensors"),
    "code in a bare pickle": (lambda path: path.write_bytes(pickle.dumps(Code(), protocol=2)), "more than tensors"),
    "a pickle that calls itself safetensors": (
        lambda path: path.with_suffix(".safetensors").write_bytes(pickle.dumps(Code())),
        "cannot be read",
    ),
    "a path up in a zip file": (
        lambda path: zipfile.ZipFile(path, "w").writestr("../ran/data.pkl", b"\x80\x02}."),
        "cannot be read",
    ),
    "a whole model": (lambda path: torch.save(torch.nn.Linear(1, 1), path), "holds more than tensors"),
}


@pytest.mark.usefixtures("stays_as_it_is")
@pytest.mark.parametrize(("write", "message"), CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_a_hostile_checkpoint_is_refused_naming_its_file(
    folder: Path, write: Callable[[Path], Any], message: str
) -> None:
    write(folder / "base.pth")
    (path,) = folder.glob("base.*")
    with pytest.raises(CheckpointError, match=message) as caught:
        read_state(str(path))
    assert path.name in str(caught.value)


def test_an_honest_checkpoint_is_read_whatever_it_holds(tmp_path: Path) -> None:
    state = {"x": torch.zeros(100_000), "y": torch.arange(3)}
    torch.save(state, tmp_path / "honest.pth")
    safetensors.torch.save_file(state, tmp_path / "honest.safetensors")
    for name in ("honest.pth", "honest.safetensors"):
        assert all(torch.equal(x, state[key]) for key, x in read_state(str(tmp_path / name)).items())

"""Files appear whole or not at all."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

import pytest

from mt_core.files import atomic_path, new_folder, sha256, write_bytes, write_json


def test_a_file_is_written_with_the_folders_it_needs(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a" / "b.bin", b"new")
    assert (tmp_path / "a" / "b.bin").read_bytes() == b"new"


def test_others_may_read_it(tmp_path: Path) -> None:
    write_bytes(tmp_path / "b.bin", b"new")
    assert stat.S_IMODE((tmp_path / "b.bin").stat().st_mode) == 0o644


def test_until_the_end_the_old_file_stands(tmp_path: Path) -> None:
    path = tmp_path / "b.bin"
    path.write_bytes(b"old")
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert temporary.parent == path.parent, "another file system could not rename it"
        assert temporary.suffix == path.suffix, "some writers choose the format by it"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_when_anything_fails_the_old_file_stays_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "b.bin"
    path.write_bytes(b"old")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_when_the_first_writing_fails_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "result.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_json_is_indented_and_ends_its_last_line(tmp_path: Path) -> None:
    write_json(tmp_path / "result.json", {"b": [1, 2]})
    text = (tmp_path / "result.json").read_text()
    assert text.startswith('{\n  "b"')
    assert text.endswith("}\n")
    assert json.loads(text) == {"b": [1, 2]}


def test_the_sum_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "b.bin").write_bytes(b"some bytes")
    assert sha256(tmp_path / "b.bin") == hashlib.sha256(b"some bytes").hexdigest()


def test_a_folder_appears_when_it_is_full(tmp_path: Path) -> None:
    path = tmp_path / "a" / "export"
    with new_folder(path) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "b.bin").write_bytes(b"new")
        assert not path.exists()
    assert (path / "inner" / "b.bin").read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_folder_that_was_not_filled_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with new_folder(tmp_path / "export") as temporary:
            (temporary / "b.bin").write_bytes(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_what_stands_in_place_of_a_new_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(FileExistsError, match="exists already; choose a new folder"), new_folder(tmp_path / name):
            pass
    assert {path.name for path in tmp_path.iterdir()} == {"file", "link"}

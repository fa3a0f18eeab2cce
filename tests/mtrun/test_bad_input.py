"""Whatever a user gets wrong ends with one clear message, no traceback, and the exit code of its kind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mtrun.cli import main

from .conftest import TINY, Mtrun

CONFIGURATION, DATA, CHECKPOINT, PLUGIN = 2, 3, 4, 6

WRONG = [
    ("adapter=nothing", "adapter 'nothing' is not installed."),
    ("adapter=mtlor", "Did you mean 'mtlora'?"),
    ("dataset=nuyd", "Did you mean 'nyud'?"),
    ("decoder=none", "decoder 'none' is not installed. Installed decoders: aspp, hrnet"),
    ("engine=warp", "engine 'warp' is not installed."),
    ("experiment=none", "there is no experiment 'none'"),
    ("protocol=none", "unknown protocol 'none'"),
    ("tasks=[semseg,flow]", "unknown task 'flow'"),
    ("tasks=[]", "tasks is empty"),
    ("tasks=[depth,depth]", "stands twice"),
    ("tasks=[semseg:many]", "expected NAME or NAME:CHANNELS"),
    ("adapter.rnk=3", "no option 'adapter.rnk'; did you mean adapter.rank?"),
    ("trainer.max_step=3", "did you mean trainer.max_steps?"),
    ("trainr.max_steps=3", "did you mean trainer?"),
    ("adapter.rank=many", "adapter.rank: Value 'many'"),
    ("adapter.rank=0", "rank=0"),
    ("adapter.name=nothing", "adapter 'nothing' is not installed."),
    ("decoder.widths=[1]", "decoder=auto has no options of its own"),
    ("backbone.features=nowhere", "before_merging"),
    ("image_size=[8,8]", "image_size=[8, 8]"),
    ("image_size=[0,32]", "expected [height, width]"),
    ("image_size=224", "image_size"),
    ("seed=-1", "seed=-1: expected a whole number from 0 on"),
    ("seed=???", "seed has no value; give seed=VALUE"),
    ("seed=${nothing}", "nothing"),
    ("loss.weights.flow=1", "loss.weights.flow: no such task"),
    ("loss.weights.depth=-1", "loss.weights.depth=-1"),
    ("loss.names.flow=l1", "loss.names.flow: no such task"),
    ("loss.names.depth=l7", "no loss 'l7'; depth has l1"),
    ("trainer.optimizer=sgd", "adamw"),
    ("trainer.keep_states=0", "trainer.keep_states=0: expected at least 1"),
    ("trainer.on_nonfinite=ignore", "trainer.on_nonfinite: Invalid value 'ignore'"),
    ("trainer.betas=[0.9,1.0]", "trainer.betas"),
    ("trainer.betas=[0.9]", "betas"),
    ("trainer.batch_size=0", "trainer.batch_size=0: expected at least 1"),
    ("trainer.warmup=1", "trainer.warmup=1.0: expected a number from 0 to below 1"),
    ("trainer.ema=1", "trainer.ema=1.0"),
    ("trainer.clip=0", "trainer.clip=0"),
    ("trainer.min_lr=1", "trainer.min_lr=1.0 is above trainer.lr"),
    ("trainer.device=abacus", "trainer.device='abacus' cannot be used"),
    ("augment.zoom=[2.0,1.0]", "zoom"),
    ("adapter=[", "quote what the shell would change, and values with special characters"),
    ("adapter=mtlora,frozen", "--multirun"),
]


@pytest.mark.parametrize(("word", "message"), WRONG, ids=[word for word, _ in WRONG])
def test_a_wrong_option_ends_with_2(mtrun: Mtrun, tmp_path: Path, word: str, message: str) -> None:
    outcome = mtrun(*TINY, "trainer.max_steps=1", word)
    assert outcome.code == CONFIGURATION
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("mtrun: error: ")]
    assert message in line
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_of_the_project_that_is_not_installed_names_its_dist(
    mtrun: Mtrun, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mt_core import discovery

    monkeypatch.setenv("MT_BLOCK", "mtlora")
    monkeypatch.setattr(discovery, "plugins", lambda: discovery.load())
    outcome = mtrun("adapter=mtlora")
    assert outcome.code == CONFIGURATION
    assert "pip install mt-adapters-mtlora" in outcome.err
    assert mtrun("dataset=toy", "backbone=swin_nano").err == outcome.err  # it is the default, too


def test_errors_are_json_too(mtrun: Mtrun) -> None:
    outcome = mtrun("adapter=nothing", "--json")
    error = outcome.json["error"]
    assert (error["type"], error["exit_code"]) == ("ConfigError", CONFIGURATION)
    assert error["message"] in outcome.err


def test_an_unknown_verb_suggests_one(mtrun: Mtrun) -> None:
    outcome = mtrun("trian", "adapter=mtlora")
    assert outcome.code == CONFIGURATION
    assert "unknown verb 'trian'; did you mean 'train'?" in outcome.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--nothing",), "--nothing"),
        (("--cfg", "job", "--info", "all"), "; see mtrun --help"),
        (("--cfg", "job", "--json"), "--json prints a result; leave it away to see the configuration"),
    ],
)
def test_flags_that_cannot_be(mtrun: Mtrun, words: tuple[str, ...], message: str) -> None:
    outcome = mtrun(*words)
    assert outcome.code == CONFIGURATION
    assert message in outcome.err
    assert "Traceback" not in outcome.err


def test_a_data_set_without_files(mtrun: Mtrun) -> None:
    outcome = mtrun(*TINY, "dataset=nyud", "dataset.root=nowhere")
    assert outcome.code == DATA
    assert "nowhere" in outcome.err


def test_an_empty_split(mtrun: Mtrun) -> None:
    outcome = mtrun(*TINY, "dataset.count=0")
    assert outcome.code == DATA
    assert "split 'train' of data set toy has no picture" in outcome.err


def test_weights_of_another_backbone(mtrun: Mtrun, tmp_path: Path) -> None:
    torch.save({"layers.0.weight": torch.zeros(2)}, tmp_path / "other.pth")
    outcome = mtrun(*TINY, "backbone=swin_tiny", "backbone.checkpoint=other.pth", "run_dir=run")
    assert outcome.code == CHECKPOINT
    assert "is it for another backbone?" in outcome.err
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_run(mtrun: Mtrun, trained: Path) -> None:
    before = sorted(trained.rglob("*"))
    outcome = mtrun(*TINY, f"run_dir={trained}")
    assert outcome.code == CONFIGURATION
    assert "holds a run already" in outcome.err
    assert sorted(trained.rglob("*")) == before


def test_a_run_dir_that_is_a_file(mtrun: Mtrun, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for run_dir, reason in (
        ("file", "was just taken by another run, or is a file; choose another"),
        ("file/run", "run_dir=file/run cannot be made: Not a directory; choose another folder"),
    ):
        outcome = mtrun(*TINY, f"run_dir={run_dir}")
        assert outcome.code == CONFIGURATION
        assert f"run_dir={run_dir}" in outcome.err
        assert reason in outcome.err


@pytest.mark.parametrize("verb", ["eval", "predict"])
def test_a_checkpoint_that_is_not_there(mtrun: Mtrun, tmp_path: Path, verb: str) -> None:
    for words in ((), ("checkpoint=",), ("--multirun", "checkpoint=a,b")):
        outcome = mtrun(verb, *words)
        assert "one checkpoint is needed" in outcome.err
        assert outcome.code == CONFIGURATION
    outcome = mtrun(verb, "checkpoint=nowhere")
    assert outcome.code == CHECKPOINT
    assert "checkpoint=nowhere: no such folder; expected a run's folder or an artefact" in outcome.err
    (tmp_path / "empty").mkdir()
    outcome = mtrun(verb, "checkpoint=empty", "dataset=toy" if verb == "eval" else "input=.")
    assert outcome.code in (CHECKPOINT, DATA)


def test_a_damaged_artefact(mtrun: Mtrun, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    for weights in (tmp_path / "run").rglob("*.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-1])
    outcome = mtrun("eval", "checkpoint=run")
    assert outcome.code == CHECKPOINT
    assert "is damaged" in outcome.err


NOT_OF_A_RUN = "not a run's configuration; restore it, or name the artefact itself"


@pytest.mark.parametrize(
    ("text", "message"),
    [("adapter: [", "cannot be read"), ("[1, 2]", NOT_OF_A_RUN), ("adapter: {name: mtlora}", NOT_OF_A_RUN)],
)
def test_a_damaged_configuration_of_a_run(mtrun: Mtrun, trained: Path, tmp_path: Path, text: str, message: str) -> None:
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text(text)
    outcome = mtrun("eval", "checkpoint=run")
    assert outcome.code == CHECKPOINT
    assert "config.yaml" in outcome.err
    assert message in outcome.err


def test_a_task_that_a_model_was_not_trained_for(mtrun: Mtrun, trained: Path) -> None:
    outcome = mtrun("eval", f"checkpoint={trained}", "tasks=[flow]", "dry_run=true")
    assert outcome.code == CONFIGURATION
    assert "unknown task 'flow'" in outcome.err
    assert "was trained for" in outcome.err


def test_a_bug_of_ours_shows_its_traceback(mtrun: Mtrun, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("mtrun.verbs.train.train", broken)
    outcome = mtrun(*TINY, "--json")
    assert outcome.code == 1
    assert "Traceback" in outcome.err
    assert outcome.json["error"]["type"] == "RuntimeError"


def test_in_a_process_of_its_own_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mtrun", "adapter=nothing", "--json"],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == CONFIGURATION
    assert json.loads(done.stdout)["error"]["exit_code"] == CONFIGURATION
    assert done.stderr.startswith("mtrun: error: adapter 'nothing' is not installed.")


def test_no_words_at_all_are_a_run_with_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("mtrun.compose.compose", lambda root, words, job: seen.append((root.name, words)))
    monkeypatch.setattr("sys.argv", ["mtrun"])
    assert main() == 0
    assert seen == [("train", [])]

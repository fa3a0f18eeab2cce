"""The command line of the leaderboard."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mt_core.artefact import read_json
from mt_core.errors import ConfigError, MTError
from mt_core.files import write_json

from .settings import METHODS, Settings

SETTINGS = "settings.json"


def main(words: list[str]) -> int:
    """Pretrain, make the runs, write the page; the exit code."""
    asked = _parser().parse_args(words)
    settings = _settings(asked)
    try:
        _claim(asked.folder, settings)
        from .page import write_page
        from .pretraining import pretrain
        from .running import finish_all, prepare

        prepare()
        pretrain(settings, asked.folder)
        finish_all([run for _, run in settings.runs(asked.folder)], asked.jobs, _say)
        write_page(settings, asked.folder, asked.page, _command(settings))
    except MTError as error:
        print(f"leaderboard: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        _say("interrupted; start again to go on")
        return 130
    _say(f"{asked.page} is written; the whole report is {asked.folder / 'report' / 'report.html'}")
    return 0


def _parser() -> argparse.ArgumentParser:
    usual = Settings()
    parser = argparse.ArgumentParser(prog="python -m scripts.leaderboard", description=sys.modules[__package__].__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/leaderboard"), help="of the runs")
    parser.add_argument("--page", type=Path, default=Path("docs/leaderboard.md"), help="the page to write")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    for name in ("steps", "seeds", "train", "val", "pretraining_steps"):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=_positive, default=getattr(usual, name), help="usually %(default)s")
    for name in ("lr", "lr_whole"):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=float, default=getattr(usual, name), help="usually %(default)s")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS), help="usually all")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, found {value}")
    return value


def _settings(asked: argparse.Namespace) -> Settings:
    values = {name: getattr(asked, name) for name in asdict(Settings())}
    return replace(Settings(), **{**values, "methods": tuple(asked.methods)})


def _claim(folder: Path, settings: Settings) -> None:
    """A folder holds runs of one budget. Raises ConfigError."""
    file, wanted = folder / SETTINGS, {k: v for k, v in asdict(settings).items() if k not in ("methods", "seeds")}
    if not file.is_file():
        write_json(file, wanted)
    elif (found := read_json(file)) != wanted:
        raise ConfigError(
            f"{folder} holds runs made with {found}, not with {wanted}; give the same, or another --folder"
        )


def _command(settings: Settings) -> str:
    """What writes this page again."""
    usual, given = asdict(Settings()), asdict(settings)
    words = [f"--{name.replace('_', '-')} {_shown(given[name])}" for name in usual if given[name] != usual[name]]
    return " ".join(["python -m scripts.leaderboard", *words]) if words else "make leaderboard"


def _shown(value: Any) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)


def _say(text: str) -> None:
    print(text, flush=True)


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main(sys.argv[1:]))

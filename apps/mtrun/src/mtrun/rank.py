"""`python -m mtrun.rank REQUEST`: one of the processes that `launch.ranks` starts."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mt_core.errors import MTError
from mt_core.files import write_json

from . import config, signals
from .places import OUTCOME, PARENT, place
from .verbs import VERBS

REPEATS = 1.0  # seconds in which a signal counts once: launchers pass on what the terminal has sent to all


def main(request: str) -> int:
    """Run what the request says, and leave word of how it ended; the exit code."""
    try:
        with signals.raising(REPEATS):
            return _run(json.loads(Path(request).read_bytes()))
    except MTError as error:
        return _ended(error, error.exit_code)
    except signals.Terminated as error:
        return _ended(error, error.exit_code)
    except KeyboardInterrupt as error:
        return _ended(error, 130)
    except Exception as error:  # noqa: BLE001 - a bug, or another rank is gone
        if type(error).__name__ != "LostError":
            traceback.print_exc()
        return _ended(error, 1)


def _run(request: Mapping[str, Any]) -> int:
    from .terminal import console, logging_to_stderr

    verb, where = VERBS[request["verb"]], place()
    is_main = where is None or where.rank == 0
    with logging_to_stderr() if is_main else nullcontext():
        if not is_main:
            logging.disable(logging.ERROR)  # the main rank says what there is to say
        values = request["values"]
        result = verb.load()(config.typed(verb.schema(), values), values)
        if is_main and not request["as_json"]:
            result.show(console(sys.stdout))
    code: int = result.exit_code
    write_json(Path(os.environ[OUTCOME]), {"value": result.value, "exit_code": code})
    return code


def _ended(error: BaseException, code: int) -> int:
    said = {"type": type(error).__name__, "message": str(error), "exit_code": code}
    write_json(Path(os.environ[OUTCOME]), said)
    return code


if __name__ == "__main__":
    signals.die_with(int(os.environ[PARENT]))
    sys.exit(main(sys.argv[1]))

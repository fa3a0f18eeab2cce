"""The command line: which verb, what is printed where, and the exit code."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from mt_core.errors import ConfigError, MTError

from . import __version__, signals
from .launching import RankError, launch
from .places import Place, is_met_by_all, place, without_local_rank
from .rank import REPEATS
from .results import Result
from .verbs import VERBS, Verb

DEFAULT = "train"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code.

    0 done, 1 a bug of ours, 2 configuration, 3 data, 4 checkpoint, 5 loss or gradient not finite, 6 plugin,
    130 interrupted, 143 terminated.
    """
    words = without_local_rank(list(sys.argv[1:] if arguments is None else arguments))
    as_json = "--json" in words
    words = ["show=true" if word == "--show" else word for word in words if word != "--json"]
    try:
        with signals.raising(0.0 if place() is None else REPEATS):
            return _run(words, as_json)
    except (MTError, RankError) as error:
        return _failed(error, error.exit_code, as_json)
    except KeyboardInterrupt:
        return _failed(KeyboardInterrupt("interrupted"), 130, as_json)
    except signals.Terminated as error:
        return _failed(error, error.exit_code, as_json)
    except SystemExit as error:  # Hydra has printed something: what it was asked for, or what is wrong with a flag
        return _failed(ConfigError("a flag cannot be read; mtrun --help lists them"), 2, as_json) if error.code else 0
    except Exception as error:  # noqa: BLE001 - a bug: everything about it is printed
        if type(error).__name__ != "LostError":  # the rank that is gone has said why
            traceback.print_exc()
        return _failed(error, 1, as_json)


def _run(words: list[str], as_json: bool) -> int:
    name, verb, rest = _verb(words)
    if "--help" in rest or "-h" in rest:
        from . import help

        print(help.of(name, verb) if words[0] in VERBS else help.overview())  # noqa: T201 - the result
        return 0
    if "--version" in rest:
        print(f"mtrun {__version__}")  # noqa: T201 - the result
        return 0
    from .terminal import logging_to_stderr

    is_main = _is_main()
    if not is_main:
        logging.disable(logging.ERROR)  # the main rank says what there is to say
    # A library that prints must not spoil the one JSON object.
    quiet = contextlib.redirect_stdout(sys.stderr) if as_json or not is_main else contextlib.nullcontext()
    results: list[Result] = []
    with logging_to_stderr():
        with quiet:
            _command(name, verb, _named(name, verb, rest), results, as_json or not is_main)
        if as_json and is_main:
            _print_json([result.value for result in results])
    return max((result.exit_code for result in results), default=0)


def _verb(words: list[str]) -> tuple[str, Verb, list[str]]:
    """The verb, by name, and the words after it; for a verb with actions, the action."""
    if not words or not _is_bare(words[0]):
        return DEFAULT, VERBS[DEFAULT], words
    name, rest = words[0], words[1:]
    verb = _choose(name, VERBS, "verb", ", or KEY=VALUE")
    if not verb.actions or "--help" in rest[:1] or "-h" in rest[:1]:
        return name, verb, rest
    if not rest or not _is_bare(rest[0]):
        raise ConfigError(f"mtrun {name} needs an action: one of {', '.join(verb.actions)}; mtrun {name} --help")
    return f"{name} {rest[0]}", _choose(rest[0], verb.actions, f"action of mtrun {name}"), rest[1:]


def _choose(word: str, verbs: Mapping[str, Verb], what: str, more: str = "") -> Verb:
    if word not in verbs:
        guess = get_close_matches(word, verbs, n=1)
        hint = f"did you mean {guess[0]!r}? " if guess else ""
        raise ConfigError(f"unknown {what} {word!r}; {hint}expected one of {', '.join(verbs)}{more}")
    return verbs[word]


def _named(name: str, verb: Verb, words: list[str]) -> list[str]:
    """The words, a first one without `=` as the option that it sets."""
    if not verb.bare or not words or not _is_bare(words[0]):
        return words
    if twice := [word for word in words if word.startswith(f"{verb.bare}=")]:
        raise ConfigError(f"mtrun {name} {words[0]} {twice[0]}: two names; leave one of them away")
    return [f"{verb.bare}={words[0]}", *words[1:]]


def _is_bare(word: str) -> bool:
    return not word.startswith(("-", "+", "~")) and "=" not in word


def _command(name: str, verb: Verb, rest: list[str], results: list[Result], silent: bool) -> None:
    """Run the verb once, or for every configuration of a sweep; results are shown as they come."""
    where = place()
    if where is not None and not verb.ranks:
        raise ConfigError(
            f"mtrun {name} is one process, and this is rank {where.rank} of {where.world}; start it alone"
        )
    if where is not None and {"--multirun", "-m"} & set(rest):
        raise ConfigError("a sweep with ranks that were started outside: use launch.ranks=N, or one run at a time")

    def keep(result: Result) -> None:
        results.append(result)
        if not silent:
            from .terminal import console

            result.show(console(sys.stdout))

    if not verb.config:
        keep(verb.load()(rest))
        return
    from . import config
    from .compose import compose, is_printing
    from .source import Root

    if silent and is_printing(rest):
        raise ConfigError("--json prints a result; leave it away to see the configuration")
    cls = verb.schema()
    saved = _saved(name, verb, rest)

    def job(values: dict[str, Any]) -> None:
        typed = config.typed(cls, values)
        asked = typed.launch.ranks if verb.ranks else 1
        if where is not None and asked not in (1, where.world):
            raise ConfigError(
                f"launch.ranks={asked}, but {where.world} ranks were started already; leave launch.ranks away"
            )
        with _saying(where):
            keep(launch(name, values, silent) if where is None and asked > 1 else verb.load()(typed, values))

    compose(Root(name, cls, saved), rest, job)


@contextlib.contextmanager
def _saying(where: Place | None) -> Iterator[None]:
    """Within, a rank that meets an error by itself says so; what all of them meet, the main one says."""
    try:
        yield
    except MTError as error:
        if where is not None and where.rank and not is_met_by_all(error):
            print(f"mtrun: error: rank {where.rank}: {error}", file=sys.stderr)  # noqa: T201
        raise


def _is_main() -> bool:
    """Whether this is the process that writes and shows."""
    try:
        where = place()
    except ConfigError:  # what the environment says cannot be
        return True
    return where is None or where.rank == 0


def _saved(name: str, verb: Verb, words: list[str]) -> dict[str, Any]:
    """The configuration of the run that the command line names, whose values stand in for the defaults."""
    from .compose import value_of
    from .runs import config_to_resume, read_config

    if verb.resumes:
        checkpoint = value_of(words, "checkpoint")
        if not isinstance(checkpoint, (str, int, float)) or checkpoint == "":
            raise ConfigError(f"one checkpoint is needed: a run's folder or an artefact; mtrun {name} checkpoint=RUN")
        return read_config(str(checkpoint))
    run = value_of(words, "resume")
    if run is None:
        return {}
    if not isinstance(run, (str, int, float)) or run == "":
        raise ConfigError(f"resume names no run: give the folder of one run; mtrun {name} resume=RUN")
    return config_to_resume(str(run))


def _print_json(values: list[dict[str, Any]]) -> None:
    value = values[0] if len(values) == 1 else {"runs": values}
    print(json.dumps(value, allow_nan=False))  # noqa: T201 - the result


def _failed(error: BaseException, code: int, as_json: bool) -> int:
    """One message on stderr, and as JSON on stdout where that was asked for; of several ranks, by the main one."""
    logging.getLogger(__name__).debug("exit code %d", code, exc_info=error)
    if not _is_main():
        return code
    print(f"mtrun: error: {error}", file=sys.stderr)  # noqa: T201 - logging is closed by now
    if as_json:
        found = {"type": getattr(error, "kind", type(error).__name__), "message": str(error), "exit_code": code}
        print(json.dumps({"error": found}))  # noqa: T201 - the result
    return code

"""Each kind of error that is the user's to mend has its exit code."""

from __future__ import annotations

import pytest

from mt_core.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    MergeError,
    MTError,
    NonFiniteError,
    PluginError,
)

CODES = {ConfigError: 2, DataError: 3, CheckpointError: 4, NonFiniteError: 5, PluginError: 6, MergeError: 2}


@pytest.mark.parametrize(("error", "code"), CODES.items())
def test_an_error_has_the_exit_code_that_scripts_rely_on(error: type[MTError], code: int) -> None:
    assert error("what is wrong").exit_code == code


def test_there_is_no_error_without_a_code_of_its_own() -> None:
    ours = {error for error in MTError.__subclasses__() if error.__module__ == MTError.__module__}
    assert ours == set(CODES)

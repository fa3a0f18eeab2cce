"""Errors that are the user's to mend. Each kind has the exit code that `mtrun` ends with.

A traceback is for our own bugs; whatever a config, a file or a plugin can get wrong is raised as one of these, with
one message that names the thing, what was found, what was expected and what to do.
"""

from __future__ import annotations


class MTError(Exception):
    """Something outside the code is wrong. `exit_code` is what a command ends with."""

    exit_code = 1


class ConfigError(MTError):
    """An option, a name or a combination that cannot work."""

    exit_code = 2


class DataError(MTError):
    """A picture, a label or a split that is missing, unreadable or out of range."""

    exit_code = 3


class CheckpointError(MTError):
    """Weights or an artefact that are damaged, or that belong to another model."""

    exit_code = 4


class NonFiniteError(MTError):
    """A loss or a gradient that is infinite or not a number."""

    exit_code = 5


class PluginError(MTError):
    """A plugin that is missing, broken, or in conflict with another."""

    exit_code = 6


class MergeError(MTError):
    """A change that is not a change of weight, and so cannot be folded into one."""

    exit_code = 2

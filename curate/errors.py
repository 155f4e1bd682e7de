"""Errors that are the user's to mend: the CLI prints them as one line, without a traceback."""

from __future__ import annotations


class CurateError(Exception):
    """Base of every error this package raises on purpose."""


class UserError(CurateError):
    """Something the user can mend. The message names the file, the key and the fix; exit code 2."""


class ConfigError(UserError, ValueError):
    """A configuration that cannot be used: unknown key, wrong type, missing file."""


class DataError(UserError, ValueError):
    """Data on disk that does not fit what it claims to be (wrong rows, wrong model, half a file)."""


class BudgetExceededError(CurateError):
    """Too much broke: the error budget stopped the run. What was committed stays; exit code 3."""


class IncompleteError(CurateError):
    """The run ended with quarantined shards: everything else is committed; exit code 3."""

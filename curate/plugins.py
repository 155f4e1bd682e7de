"""Plug-in files: Python files, named in a config, that define rules, scorers or sources of one's own.

A file is run as a module whose name has the digest of its text, in the driver and in every worker. So what it
defines is pickled like anything else, by module and name, and two versions of a file are two modules.
"""

from __future__ import annotations

import enum
import hashlib
import os
import re
import sys
import threading
import types
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.errors import ConfigError

if TYPE_CHECKING:
    from curate.config.kinds import OpenSet

TRUSTED = "CURATE_PLUGINS"
"""Environment variable: plug-in files that a config found in a workspace may name, as a search path."""

_LOADING = threading.RLock()
_PATHS: set[str] = set()
"""Files that this process has run."""


class Trust(enum.Enum):
    """Which of the plug-in files that a config names may be run."""

    ALL = "all"
    """It is the user's own config."""
    LISTED = "listed"
    """It was found somewhere: only what the user has run already, or lists in ``CURATE_PLUGINS``."""


@dataclass(frozen=True)
class PluginFile:
    """A plug-in file as it was read; small enough to send to workers."""

    path: str
    text: str

    @property
    def digest(self) -> str:
        """128 bits of its text."""
        return hashlib.blake2b(self.text.encode(), digest_size=16).hexdigest()

    @property
    def module(self) -> str:
        """The name under which it is imported."""
        stem = re.sub(r"\W", "_", Path(self.path).stem)
        return f"curate_plugin_{stem}_{self.digest[:8]}"

    def load(self) -> None:
        """Make known what it defines, in place of what an earlier version of it defined.

        It is run once in a process, however often and by however many threads it is loaded.

        Raises:
            ConfigError: it raises something, defines nothing, or a name that is taken.
        """
        with _LOADING:
            try:
                self._run()
                self._register()
            except ConfigError as error:
                raise ConfigError(f"{self.path}: {error}") from None

    def _run(self) -> None:
        if self.module in sys.modules:
            return
        module = types.ModuleType(self.module)
        module.__file__ = self.path
        sys.modules[self.module] = module
        try:
            exec(compile(self.text, self.path, "exec", dont_inherit=True), module.__dict__)
            defined = [settings for kinds in open_sets() for settings in kinds.defined_in(self.module)]
            if not defined:
                raise ConfigError("defines no rule, scorer or source (docs/plugins.md)")
            for settings in defined:
                settings.plugin_digest = self.digest
        except BaseException as error:
            del sys.modules[self.module]
            if isinstance(error, ConfigError) or not isinstance(error, Exception | SystemExit):
                raise
            where = _line_in(error, self.path)
            said = error.msg if isinstance(error, SyntaxError) else error
            raise ConfigError(f"{where}{type(error).__name__}: {said}") from None

    def _register(self) -> None:
        defined = [(kinds, kinds.defined_in(self.module)) for kinds in open_sets()]
        for kinds, mine in defined:
            kinds.check_free(mine, self.path)
        for kinds, mine in defined:
            kinds.add(mine, self.path)
        _PATHS.add(self.path)


def open_sets() -> list[OpenSet[Any]]:
    """The sets that a plug-in can add to."""
    from curate.config.rules.base import RULES
    from curate.config.scorers.base import SCORERS
    from curate.config.sources.base import SOURCES

    return [RULES, SCORERS, SOURCES]


def read_plugin(path: str) -> PluginFile:
    """Read a plug-in file.

    Raises:
        ConfigError: no such file, or not UTF-8.
    """
    try:
        return PluginFile(path, Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"{path}: {said}") from None


def load_plugin(path: Path, trust: Trust = Trust.ALL) -> str:
    """Read and load a plug-in file; the path of the one that was loaded.

    Args:
        path: absolute. A file that was found in a config may be listed under another path: it is known by
            its name.

    Raises:
        ConfigError: see ``read_plugin`` and ``PluginFile.load``; or it is not trusted.
    """
    if trust is Trust.LISTED:
        if str(path) in _PATHS:
            return str(path)
        listed = next((mine for mine in trusted_files() if mine.name == path.name), None)
        if listed is None:
            raise ConfigError(
                f"{path}: a config that is stored in a workspace does not get to run files of its choice; "
                f"if you trust this one: export {TRUSTED}={path}"
            )
        path = listed
    read_plugin(str(path)).load()
    return str(path)


def trusted_files() -> list[Path]:
    """The plug-in files that the environment trusts, as absolute paths."""
    listed = os.environ.get(TRUSTED, "").split(os.pathsep)
    return [Path(path).expanduser().resolve() for path in listed if path]


def _line_in(error: BaseException, path: str) -> str:
    """Where in the file an error was raised: ``line 12: ``."""
    if isinstance(error, SyntaxError) and error.filename == path:
        return f"line {error.lineno}: "
    line, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = f"line {trace.tb_lineno}: "
        trace = trace.tb_next
    return line

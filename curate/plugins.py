"""Plug-in files: Python files, named in a config, that define rules, scorers or sources of one's own.

A file is run as a module whose name has the digest of its text, in the driver and in every worker, so that
what it defines travels between processes like anything else, and two versions of it are two modules.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.errors import ConfigError

if TYPE_CHECKING:
    from curate.config.kinds import OpenSet

TRUSTED = "CURATE_PLUGINS"
"""Environment variable: plug-in files that a config found in a workspace may name, as a search path."""


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
        """Run it and make known what it defines, once per process.

        Raises:
            ConfigError: it raises something, defines nothing, or a name that is taken.
        """
        if self.module in sys.modules:
            return
        _loaded.append(self)
        module = types.ModuleType(self.module)
        module.__file__ = self.path
        sys.modules[self.module] = module
        try:
            exec(compile(self.text, self.path, "exec"), module.__dict__)
            self._define(vars(module))
        except Exception as error:  # noqa: BLE001 - a plug-in can raise anything
            del sys.modules[self.module]
            _loaded.remove(self)
            if isinstance(error, ConfigError):
                raise ConfigError(f"{self.path}: {error}") from None
            line = _line_in(error, self.path)
            raise ConfigError(f"{self.path}{line}: {type(error).__name__}: {error}") from None

    def _define(self, namespace: dict[str, Any]) -> None:
        found = [kind for kinds in open_sets() for kind in kinds.add_all(namespace)]
        if not found:
            raise ConfigError("defines no rule, scorer or source (docs/plugins.md)")
        for kinds in open_sets():
            for value in namespace.values():
                if isinstance(value, type) and issubclass(value, kinds.base) and value.kind in found:
                    value.plugin_digest = self.digest


_loaded: list[PluginFile] = []


def open_sets() -> list[OpenSet[Any]]:
    """The sets that a plug-in can add to."""
    from curate.config.rules.base import RULES
    from curate.config.scorers.base import SCORERS
    from curate.config.sources.base import SOURCES

    return [RULES, SCORERS, SOURCES]


def loaded_files() -> list[PluginFile]:
    """The plug-in files that this process has loaded, for those that work for it."""
    return list(_loaded)


def read_plugin(path: str) -> PluginFile:
    """Read a plug-in file.

    Raises:
        ConfigError: no such file, or not UTF-8.
    """
    try:
        return PluginFile(path, Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"plugins: {path}: {said}") from None


def trusted_files() -> list[str]:
    """The plug-in files that the environment trusts."""
    return [path for path in os.environ.get(TRUSTED, "").split(os.pathsep) if path]


def _line_in(error: BaseException, path: str) -> str:
    """Where in the file an error was raised: ``:12``."""
    if isinstance(error, SyntaxError) and error.filename == path:
        return f":{error.lineno}"
    line, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = f":{trace.tb_lineno}"
        trace = trace.tb_next
    return line

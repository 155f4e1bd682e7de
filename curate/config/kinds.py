"""Open sets of settings: rules, scorers and sources, each kind a class of its own.

A kind is known when its settings class is: the built-in ones lie one to a module in a package of
``curate.config``; others are named by an installed package as entry points of the set's group, or stand in
a plug-in file that the config names. A settings class says where its meaning is, and that is imported when
it is needed: to read a config, no kind has to be loaded but its settings.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

from curate.config.base import Settings
from curate.errors import ConfigError


class KindSettings(Settings):
    """Settings of one kind of an open set.

    Attributes:
        kind: what a config calls it; unique within the set.
        implementation: ``package.module:name`` of its meaning; what that is, the set says.
        plugin_digest: of the file that defines it, where that is a plug-in file: another file is another
            setting, so that a changed plug-in is not taken for the one that ran.
    """

    kind: ClassVar[str] = ""
    implementation: ClassVar[str] = ""
    plugin_digest: ClassVar[str] = ""

    def facts(self) -> dict[str, Any]:
        """What decides the output, see ``Settings.facts``; of a plug-in also the digest of its file."""
        facts = super().facts()
        return {**facts, "plugin": self.plugin_digest} if self.plugin_digest else facts

    @classmethod
    def load_implementation(cls) -> Any:
        """The meaning of this kind, imported now.

        Raises:
            ConfigError: there is no such module or name.
        """
        module, _, name = cls.implementation.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            if module.startswith("curate."):
                raise
            raise ConfigError(f"'{cls.kind}': cannot load {cls.implementation} ({error})") from None


KindT = TypeVar("KindT", bound=KindSettings)


class OpenSet(Generic[KindT]):
    """The kinds of one set.

    Args:
        what: a kind, for messages: ``rule``.
        base: class of all its settings.
        package: whose modules define the built-in kinds.
        group: entry points of installed packages: name → settings class.
    """

    def __init__(self, what: str, base: type[KindT], package: str, group: str) -> None:
        self.what, self.base, self.package, self.group = what, base, package, group
        self._known: dict[str, type[KindT]] = {}
        self._built_in: dict[str, type[KindT]] = {}

    def built_in(self) -> Mapping[str, type[KindT]]:
        """Kind → settings class of those that come with this program."""
        if not self._built_in:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                for value in vars(importlib.import_module(f"{self.package}.{module.name}")).values():
                    if self._is_kind(value):
                        self._built_in[value.kind] = value
        return self._built_in

    def find(self, kind: str) -> type[KindT] | None:
        """The settings class of a kind; installed packages are only asked about one that is not known.

        Raises:
            ConfigError: a package claims the kind, and what it names cannot be loaded.
        """
        found = self.built_in().get(kind) or self._known.get(kind)
        if found is None:
            for entry in self._entry_points():
                if entry.name == kind:
                    return self._loaded(entry)
        return found

    def all(self) -> Mapping[str, type[KindT]]:
        """Kind → settings class of all there are: built in, of installed packages, of plug-in files."""
        installed = {e.name: self._loaded(e) for e in self._entry_points() if e.name not in self.built_in()}
        return {**self.built_in(), **installed, **self._known}

    def add(self, settings: type[KindT]) -> None:
        """Make a kind known that is neither built in nor named by an installed package.

        Raises:
            ConfigError: the name is taken.
        """
        other = self.find(settings.kind)
        if other is not None and other is not settings:
            raise ConfigError(f"{self.what} '{settings.kind}' is there already ({other.__module__})")
        self._known[settings.kind] = settings

    def add_all(self, namespace: Mapping[str, Any]) -> list[str]:
        """Add every kind of this set that a module defines; their names."""
        found = [value for value in namespace.values() if self._is_kind(value)]
        for settings in found:
            self.add(settings)
        return [settings.kind for settings in found]

    def _is_kind(self, value: Any) -> bool:
        return isinstance(value, type) and issubclass(value, self.base) and bool(value.__dict__.get("kind"))

    def _entry_points(self) -> importlib.metadata.EntryPoints:
        return importlib.metadata.entry_points(group=self.group)

    def _loaded(self, entry: importlib.metadata.EntryPoint) -> type[KindT]:
        package = entry.dist.name if entry.dist else entry.value
        try:
            settings = entry.load()
        except Exception as error:  # noqa: BLE001 - a package can raise anything while it is imported
            raise ConfigError(f"{self.what} '{entry.name}' of the package {package}: {error}") from None
        if not self._is_kind(settings) or settings.kind != entry.name:
            raise ConfigError(
                f"{self.what} '{entry.name}' of the package {package}: {entry.value} is not a "
                f"{self.base.__name__} of that kind"
            )
        found: type[KindT] = settings
        self._known[entry.name] = found
        return found

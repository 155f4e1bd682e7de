"""Open sets of settings: rules, scorers and sources, each kind a class of its own.

A kind is known when its settings class is. The built-in ones lie in a package of ``curate.config``, one to a
module of the kind's name; others are named by an installed package as entry points of the set's group, or
stand in a plug-in file that a config names. A settings class says where its meaning is, and that is imported
when it is needed: to read a config, no module is loaded but those of the kinds that it uses.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import pkgutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from curate.config.base import Settings
from curate.config.wording import nearest, shown
from curate.errors import ConfigError

PLUGIN = "plug-in"
"""Key of facts: no name of a field has a hyphen."""


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
        return {**facts, PLUGIN: self.plugin_digest} if self.plugin_digest else facts

    @classmethod
    def load_implementation(cls) -> Any:
        """The meaning of this kind, imported now.

        Raises:
            ConfigError: there is no such module or name.
        """
        module, _, name = cls.implementation.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            if module.startswith("curate."):
                raise
            raise ConfigError(f"'{cls.kind}': cannot load '{cls.implementation}' ({error})") from None


KindT = TypeVar("KindT", bound=KindSettings)


class OpenSet(Generic[KindT]):
    """The kinds of one set, and how a config tells which of them it means.

    Args:
        what: a kind, for messages: ``rule``.
        base: class of all its settings.
        package: whose modules define the built-in kinds, each one kind, whose name is the module's (less an
            underscore at its end, for names that Python keeps to itself). The module ``base`` defines none.
        group: entry points of installed packages: name → settings class.
        tag: the key of a config whose value is the kind. None: the kind is itself a key.
        default: the kind that is meant where the tag is not given; None: it has to be.
        text: the kind that a bare text stands for, which is then the value of the key of that name.
        first: kinds with which messages begin their lists; the others follow by name.
    """

    def __init__(
        self,
        what: str,
        base: type[KindT],
        package: str,
        group: str,
        *,
        tag: str | None = None,
        default: str | None = None,
        text: str | None = None,
        first: tuple[str, ...] = (),
    ) -> None:
        self.what, self.base, self.package, self.group = what, base, package, group
        self.tag, self.default, self.text, self.first = tag, default, text, first
        self._added: dict[str, tuple[type[KindT], str]] = {}
        """Kinds that are not built in → settings class, and the file or package that defines it."""

    def find(self, kind: str) -> type[KindT] | None:
        """The settings class of a kind; installed packages are only asked about one that is not known.

        Raises:
            ConfigError: a package claims the kind, and what it names cannot be loaded.
        """
        return self._known(kind) or self._installed(kind)

    def names(self) -> tuple[str, ...]:
        """All kinds: built in, of installed packages, of plug-in files."""
        known = {*self._modules, *self._added, *(entry.name for entry in _entry_points(self.group))}
        return (*(name for name in self.first if name in known), *sorted(known - {*self.first}))

    def all(self) -> Mapping[str, type[KindT]]:
        """Kind → settings class of all there are.

        Raises:
            ConfigError: what an installed package names cannot be loaded.
        """
        return {name: found for name in self.names() if (found := self.find(name))}

    def kind_of(self, value: Mapping[str, Any]) -> type[KindT] | None:
        """The settings class that a mapping in a config is meant for; None when it does not say."""
        if self.tag is not None:
            return self.find(str(value.get(self.tag, self.default)))
        # A key of one kind may be the name of another: it is the kind that knows all the keys.
        found: list[type[KindT]] = []
        for ask in (self._known, self._installed):
            found += [settings for key in value if (settings := ask(key))]
            fitting = next((settings for settings in found if {*value} <= {*keys_of(settings)}), None)
            if fitting:
                return fitting
        return found[0] if found else None

    def validate(self, value: Any) -> KindT:
        """Settings from what stands in a config.

        Raises:
            ValidationError, PydanticCustomError: to be told by ``curate.config.loading``.
        """
        if isinstance(value, self.base):
            return value
        mapping = self.as_mapping(value)
        if mapping is None:
            expected = f"{'text or ' if self.text else ''}a mapping of keys"
            raise _error("kind_type", f"expected {expected}, got {shown(value)}")
        settings = self.kind_of(mapping)
        if settings is None:
            raise self._unknown(mapping)
        return settings.model_validate(mapping)

    def as_mapping(self, value: Any) -> Mapping[str, Any] | None:
        """What stands in a config, a bare text written out; None for what cannot be settings."""
        if isinstance(value, str) and self.text:
            return {self.text: value}
        return value if isinstance(value, Mapping) else None

    def replaces(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
        """Whether settings are of another kind than those that they stand over, so that nothing of these
        is left."""
        if self.tag is not None:
            return new.get(self.tag) not in (None, old.get(self.tag, self.default))
        before = self.kind_of(old)
        if before is None or {*new} <= {*keys_of(before)}:
            return False
        return self.kind_of(new) not in (None, before)

    def _unknown(self, value: Mapping[str, Any]) -> Exception:
        names = self.names()
        if self.tag is None:
            near = next(filter(None, (nearest(str(key), names) for key in value)), "")
            return _error("unknown_kind", f"{near} a {self.what} needs one of the keys: {', '.join(names)}")
        if self.tag not in value:
            missing = InitErrorDetails(type="missing", loc=(self.tag,), input=value)
            return ValidationError.from_exception_data(self.what, [missing])
        given, listed = str(value[self.tag]), ", ".join(f"'{name}'" for name in names)
        error = _error("unknown_kind", f"{nearest(given, names)} '{given}' is none of {listed}")
        wrong = InitErrorDetails(type=error, loc=(self.tag,), input=value[self.tag])
        return ValidationError.from_exception_data(self.what, [wrong])

    def defined_in(self, module: str) -> list[type[KindT]]:
        """The kinds that a loaded module defines itself.

        Raises:
            ConfigError: two of one name.
        """
        found: dict[str, type[KindT]] = {}
        for value in vars(sys.modules[module]).values():
            mine = self._is_kind(value) and value.__module__ == module
            if mine and found.setdefault(value.kind, value) is not value:
                raise ConfigError(f"defines {self.what} '{value.kind}' twice")
        return list(found.values())

    def check_free(self, kinds: Iterable[type[KindT]], origin: str) -> None:
        """Whether kinds can be added.

        Raises:
            ConfigError: a name is taken, by another file or package.
        """
        for settings in kinds:
            other = self.find(settings.kind)
            if other not in (None, settings) and self._added.get(settings.kind, (None, ""))[1] != origin:
                raise ConfigError(f"{self.what} '{settings.kind}' is there already ({other.__module__})")

    def add(self, kinds: Iterable[type[KindT]], origin: str) -> None:
        """Make kinds known, in place of all that the same file has defined before."""
        others = {kind: entry for kind, entry in self._added.items() if entry[1] != origin}
        self._added = {**others, **{settings.kind: (settings, origin) for settings in kinds}}

    @functools.cached_property
    def _modules(self) -> Mapping[str, str]:
        """Built-in kind → its module."""
        package = importlib.import_module(self.package)
        found = (module.name for module in pkgutil.iter_modules(package.__path__))
        return {name.removesuffix("_"): f"{self.package}.{name}" for name in found if name != "base"}

    def _known(self, kind: str) -> type[KindT] | None:
        if kind in self._modules:
            name = self._modules[kind]
            importlib.import_module(name)
            (found,) = (settings for settings in self.defined_in(name) if settings.kind == kind)
            return found
        return self._added.get(kind, (None, ""))[0]

    def _installed(self, kind: str) -> type[KindT] | None:
        entry = next((entry for entry in _entry_points(self.group) if entry.name == kind), None)
        if entry is None:
            return None
        package = entry.dist.name if entry.dist else entry.value
        place = f"{self.what} '{kind}' of the package {package}"
        try:
            found = entry.load()
        except Exception as error:  # noqa: BLE001 - a package can raise anything while it is imported
            raise ConfigError(f"{place}: {type(error).__name__}: {error}") from None
        if not self._is_kind(found) or found.kind != kind:
            raise ConfigError(f"{place}: {entry.value} is no {self.base.__name__} of that kind")
        settings: type[KindT] = found
        self._added[kind] = settings, package
        return settings

    def _is_kind(self, value: Any) -> bool:
        return isinstance(value, type) and issubclass(value, self.base) and bool(value.__dict__.get("kind"))


@dataclass(frozen=True)
class Written:
    """Annotation of a value that will be settings of a kind, but is not looked at yet."""

    kinds: OpenSet[Any]


class KindOf(Written):
    """Annotation of settings of any kind of a set: ``Annotated[RuleSettings, KindOf(RULES)]``."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validated by the class of its kind, and serialised by it."""
        serialization = core_schema.simple_ser_schema("any")
        return core_schema.no_info_plain_validator_function(self.kinds.validate, serialization=serialization)


def keys_of(settings: type[BaseModel]) -> list[str]:
    """The keys that settings have in a config, in their order."""
    return [field.alias or name for name, field in settings.model_fields.items()]


def _error(kind: str, message: str) -> PydanticCustomError:
    # Pydantic would take what stands in braces for a place to fill.
    return PydanticCustomError(kind, "{message}", {"message": message.lstrip()})


def _entry_points(group: str) -> importlib.metadata.EntryPoints:
    return _entry_points_on(group, tuple(sys.path))


@functools.lru_cache(maxsize=16)
def _entry_points_on(group: str, path: tuple[str, ...]) -> importlib.metadata.EntryPoints:
    """Looking through all that is installed takes tens of milliseconds."""
    return importlib.metadata.entry_points(group=group)

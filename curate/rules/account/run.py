"""An experiment as it was run: settings, what its rules learned, and the account, read from a selection."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from curate.config.filters import Experiment
from curate.config.kinds import as_written
from curate.config.rules.base import RULES
from curate.dataset import layout
from curate.dataset.workspace import Workspace
from curate.errors import UserError
from curate.plugins import TRUSTED
from curate.rules.account.reading import Account
from curate.rules.contract import Learned

FORMAT = 1
"""Of ``learned.json``."""

LEARNED, FUNNEL = "learned.json", "funnel.json"

_NOT_UNDERSTOOD = "not understood; remove it and run `curate filter` again"


@dataclass(frozen=True)
class ExperimentRun:
    """What ``learned.json`` and ``funnel.json`` say.

    Attributes:
        name: of the experiment.
        settings: what decided the selection, with the digests of the files that rules name.
        rows: of the pool.
        columns: name → family, type and maker of each column that the rules read.
        learned: rule → what it learned, with its kind and text.
        files: name → size and digest of each file that a rule learned.
        frozen: where numbers are from that were learned elsewhere; None: all were learned here.
        account: None: it is not read.
    """

    name: str
    settings: Mapping[str, Any]
    rows: int
    columns: Mapping[str, Any]
    learned: Mapping[str, Learned]
    files: Mapping[str, Any]
    frozen: Mapping[str, Any] | None = None
    account: Account | None = None

    @property
    def experiment(self) -> Experiment:
        """The experiment as it was, its rules in their order.

        Raises:
            ValueError: its rules are not understood; another version of this program or of a plug-in wrote
                them.
        """
        rest = {key: value for key, value in self.settings.items() if key not in ("order", "rules")}
        return Experiment.model_validate({**rest, "rules": self.rules})

    @property
    def rules(self) -> dict[str, dict[str, Any]]:
        """Rule → its settings as in a config, in their order."""
        return {name: as_written(self.settings["rules"][name]) for name in self.settings["order"]}

    def facts(self) -> dict[str, Any]:
        """``learned.json``, as plain JSON values."""
        return {
            "format": FORMAT,
            "experiment": self.name,
            "settings": dict(self.settings),
            "rows": self.rows,
            "frozen": self.frozen,
            "columns": dict(self.columns),
            "rules": dict(self.learned),
            "files": dict(self.files),
        }

    @classmethod
    def from_bytes(cls, name: str, data: bytes, account: Account | None = None) -> ExperimentRun:
        """Read ``learned.json``.

        Raises:
            ValueError: it is none.
        """
        stored = _Stored.model_validate(json.loads(data, parse_constant=_refuse))
        if not {*stored.settings.order} <= {*stored.settings.rules}:
            raise ValueError("its order names rules that are not there")
        return cls(
            name,
            stored.settings.model_dump(),
            stored.rows,
            stored.columns,
            stored.rules,
            stored.files,
            stored.frozen,
            account,
        )


class _Settings(BaseModel):
    model_config = ConfigDict(extra="allow")

    rules: dict[str, dict[str, Any]]
    order: list[str]


class _Stored(BaseModel):
    format: Literal[1]
    settings: _Settings
    rows: int
    columns: dict[str, Any]
    rules: dict[str, Any]
    files: dict[str, Any] = {}
    frozen: dict[str, Any] | None = None


def read_run(workspace: Workspace, name: str) -> ExperimentRun | None:
    """An experiment as it was run; None for a selection that was made elsewhere.

    Raises:
        UserError: another version of this program wrote it, and its rules are not understood.
    """
    path = layout.selection_file(name, LEARNED)
    if not workspace.exists(path):
        return None
    data = workspace.read_bytes(path)
    try:
        if "settings" not in json.loads(data):
            return None
        run = ExperimentRun.from_bytes(name, data, read_account(workspace, name))
    except (ValueError, TypeError):
        raise UserError(f"{workspace.url}/{path}: {_NOT_UNDERSTOOD}") from None
    try:
        run.experiment  # noqa: B018 - so that it can be had
    except ValueError:
        strange = [rule for rule, settings in run.rules.items() if RULES.kind_of(settings) is None]
        if strange:
            raise UserError(
                f"{workspace.url}/{path}: the kind of rule '{strange[0]}' is not known here; name the "
                f"plug-in file that defines it in the config, or in {TRUSTED}"
            ) from None
        raise UserError(f"{workspace.url}/{path}: {_NOT_UNDERSTOOD}") from None
    return run


def read_account(workspace: Workspace, name: str) -> Account:
    """The account of an experiment; without any facts when there is none.

    Raises:
        UserError: it is not understood.
    """
    path = layout.selection_file(name, FUNNEL)
    try:
        return Account.from_facts(workspace.read_json(path) if workspace.exists(path) else {})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{workspace.url}/{path}: {_NOT_UNDERSTOOD}") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")

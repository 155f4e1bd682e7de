"""An experiment as it was run: settings, what its rules learned, and the account, read from a selection."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, InstanceOf

from curate.config.filters import Experiment
from curate.config.kinds import as_written
from curate.config.rules.base import RULES
from curate.dataset import layout
from curate.dataset.workspace import Workspace
from curate.errors import UserError
from curate.plugins import TRUSTED
from curate.rules.account.reading import Account

LEARNED, FUNNEL = "learned.json", "funnel.json"

_NOT_UNDERSTOOD = "not understood; remove it and run `curate filter` again"


class ExperimentRun(BaseModel):
    """What ``learned.json`` says, and ``funnel.json`` beside it.

    Attributes:
        experiment: its name.
        settings: what decided the selection, with the digests of the files that rules name.
        rows: of the pool.
        frozen: where numbers are from that were learned elsewhere; None: all were learned here.
        columns: name → family, type and maker of each column that the rules read.
        rules: name → what the rule learned, with its kind and text.
        files: name → size and digest of each file that a rule learned.
        account: None: it was not read.
    """

    model_config = ConfigDict(frozen=True, defer_build=True)

    format: Literal[1] = 1
    experiment: str = ""
    settings: dict[str, Any]
    rows: int
    frozen: dict[str, Any] | None = None
    columns: dict[str, Any]
    rules: dict[str, Any]
    files: dict[str, Any] = {}
    account: InstanceOf[Account] | None = Field(None, exclude=True)

    @classmethod
    def from_bytes(cls, data: bytes) -> ExperimentRun:
        """Read ``learned.json``.

        Raises:
            ValueError, KeyError, TypeError: it is none.
        """
        run = cls.model_validate(json.loads(data, parse_constant=_refuse))
        run.written_rules()
        return run

    def written_rules(self) -> dict[str, dict[str, Any]]:
        """Rule → its settings as in a config, in their order."""
        return {name: as_written(self.settings["rules"][name]) for name in self.settings["order"]}

    def as_config(self) -> Experiment:
        """The experiment as it was.

        Raises:
            ValueError: its rules are not understood; another version of this program or of a plug-in wrote
                them.
        """
        rest = {key: value for key, value in self.settings.items() if key not in ("order", "rules")}
        return Experiment.model_validate({**rest, "rules": self.written_rules()})


def read_run(workspace: Workspace, name: str) -> ExperimentRun | None:
    """An experiment as it was run; None for a selection that was made elsewhere.

    Raises:
        UserError: its rules are not understood; another version of this program or of a plug-in wrote it.
    """
    path = layout.selection_file(name, LEARNED)
    if not workspace.exists(path):
        return None
    place, rules = f"{workspace.url}/{path}", {}
    try:
        data = workspace.read_bytes(path)
        if "settings" not in json.loads(data):
            return None
        run = ExperimentRun.from_bytes(data)
        rules = run.written_rules()
        run.as_config()
    except (ValueError, KeyError, TypeError, AttributeError):
        strange = next((rule for rule, settings in rules.items() if RULES.kind_of(settings) is None), None)
        if strange is None:
            raise UserError(f"{place}: {_NOT_UNDERSTOOD}") from None
        raise UserError(
            f"{place}: the kind of rule '{strange}' is not known here; name the plug-in file that defines it "
            f"in the config, or in {TRUSTED}"
        ) from None
    return run.model_copy(update={"account": read_account(workspace, name)})


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

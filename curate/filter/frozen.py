"""What rules learned in another workspace: found, checked, copied, and shown as what it is.

Of an experiment that is frozen, rules that are transferable do not learn; they take what the same
experiment learned elsewhere. Everything that can be wrong with that is said before any work is done.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curate.config.filters import Experiment, Rule
from curate.config.kinds import as_written
from curate.config.rules.base import RULES
from curate.dataset import layout
from curate.dataset.family import Family
from curate.dataset.records import RecordStore
from curate.dataset.workspace import FileRef, Workspace, ref_of
from curate.engine.plan import describe_changes
from curate.errors import UserError
from curate.rules.account.run import LEARNED, ExperimentRun
from curate.rules.contract import Learned, LearnedForm, file_name
from curate.rules.logic import written
from curate.rules.program import Program
from curate.samples.columns import Column

_INTEGERS = re.compile(r"u?int(8|16|32|64)")


@dataclass(frozen=True)
class Calibration:
    """What an experiment learned elsewhere.

    Attributes:
        origin: the workspace of which it is.
        digest: of its ``learned.json``, which has the digests of the files beside it.
        rows: of the pool that it was learned of.
        earlier: where that workspace in turn has it from.
        rules: what each rule learned that is transferable.
        files: those of these rules, by rule.
        columns: family, type and maker of the columns there.
    """

    experiment: str
    origin: Workspace
    digest: str
    rows: int
    earlier: Mapping[str, Any] | None
    rules: Mapping[str, Learned]
    files: Mapping[str, FileRef]
    columns: Mapping[str, Any]

    @property
    def place(self) -> str:
        """The config key that asks for it."""
        return f"filter.experiments.{self.experiment}.frozen"

    def facts(self) -> dict[str, Any]:
        """Where the numbers are from, for ``learned.json``."""
        facts = {"from": self.origin.url, "digest": self.digest, "rows": self.rows}
        return {**facts, "earlier": self.earlier} if self.earlier else facts

    def check(self, workspace: Workspace, program: Program, columns: Mapping[str, Column]) -> None:
        """Whether its numbers are about these columns.

        Raises:
            UserError: a column is of another type, or another model or clustering has made it; it is the
                calibration of the same workspace.
        """
        if self.origin.is_same(workspace):
            raise UserError(f"{self.place}: {self.origin.url} is this workspace; it would freeze itself")
        made = makers(workspace, columns)
        for rule in program.rules:
            for name in sorted(rule.columns) if rule.name in self.rules else ():
                there, here = self.columns.get(name), columns[name]
                if not isinstance(there, Mapping):
                    raise UserError(f"{self.place}: {self._file}: says nothing about column '{name}'")
                if not _alike(str(there.get("type")), str(here.type)):
                    raise UserError(
                        f"{self.place}: column '{name}' of rule '{rule.name}' is {here.type}, in "
                        f"{self.origin.url} it is {there.get('type')}; what was learned of one is not exact "
                        "for the other: make the column in the same way"
                    )
                theirs, ours = there.get("made_by") or {}, made.get(here.family, {})
                for key in sorted(set(theirs) & set(ours)):
                    if theirs[key] != ours[key]:
                        raise UserError(
                            f"{self.place}: column '{name}' of rule '{rule.name}' is made by another "
                            f"{key} here than in {self.origin.url} ({ours[key]}, there {theirs[key]}); "
                            "its numbers mean something else"
                        )

    def take(
        self, workspace: Workspace, folder: str | None = None
    ) -> tuple[dict[str, Learned], list[FileRef]]:
        """Put the files in place.

        Args:
            folder: below that of the selections. Default: the experiment's own.

        Returns:
            Rule name → what it learned, as if it had learned it here, and the files.

        Raises:
            UserError: a file is no longer the one that ``learned.json`` names.
        """
        learned: dict[str, Learned] = {
            name: {**facts, "from": self.origin.url} for name, facts in self.rules.items()
        }
        place = folder or self.experiment
        return learned, [self._copy(workspace, ref, place) for ref in self.files.values()]

    def show(self, rules: Sequence[dict[str, Any]]) -> None:
        """Say in the funnel's rules where numbers are from; a ``quantile`` is the one here."""
        for facts in rules:
            if facts["rule"] in self.rules:
                there = {"from": self.origin.url, "rows": self.rows}
                learned = self.rules[facts["rule"]]
                if "quantile" in facts and "quantile" in learned:
                    there["quantile"] = learned["quantile"]
                    valued = facts["passed"] + facts["failed"]
                    facts["quantile"] = facts["failed"] / valued if valued else None
                facts["frozen"] = there

    def _copy(self, workspace: Workspace, ref: FileRef, folder: str) -> FileRef:
        path = layout.selection_file(folder, ref.path.rsplit("/", 1)[-1])
        with workspace.writing(path) as temporary:
            try:
                with self.origin.open(ref.path) as source, temporary.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
            except OSError as error:
                raise UserError(f"{self.place}: {self.origin.url}/{ref.path}: {error}") from None
            copied = ref_of(temporary, path)
            if copied.digest != ref.digest:
                raise UserError(
                    f"{self.place}: {self.origin.url}/{ref.path} is not the file that {LEARNED} beside it "
                    "names; run filter there again"
                )
        return copied

    @property
    def _file(self) -> str:
        return f"{self.origin.url}/{layout.selection_file(self.experiment, LEARNED)}"


def calibration(name: str, experiment: Experiment, settings: Mapping[str, Any]) -> Calibration | None:
    """What an experiment shall take from elsewhere; None when it learns all here.

    Args:
        settings: of the experiment, with the digests of the files that its rules name.

    Raises:
        UserError: it is not there, broken, or of other rules.
    """
    frozen = experiment.frozen
    if frozen is None:
        return None
    origin = Workspace(frozen.workspace, frozen.storage_options)
    path = layout.selection_file(name, LEARNED)
    place = f"filter.experiments.{name}.frozen"
    file = f"{place}: {origin.url}/{path}"
    data = _read(origin, path, name, place)
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    if frozen.digest not in (None, digest):
        raise UserError(f"{file} has the digest {digest}, not {frozen.digest}")
    try:
        run = ExperimentRun.from_bytes(data)
        earlier = run.frozen
        rows = int(earlier["rows"]) if earlier else run.rows
        other = _difference(settings, _settings(run))
    except (ValueError, KeyError, TypeError) as error:
        what = f" ({error})" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"{file}: is no {LEARNED} of curate{what}; run filter there again") from None
    if other:
        raise UserError(
            f"{file}: {other}; numbers hold for the rules that learned them: make the rules alike, or run "
            "filter there again with these"
        )
    sizes = origin.sizes(path.rsplit("/", 1)[0])
    learned, files = {}, {}
    for number, (rule, kind) in enumerate(experiment.rules.items()):
        if kind.transferable:
            at = f"{file}: rules.{rule}"
            learned[rule] = _checked(run.rules.get(rule), kind, at)
            if "file" in learned[rule]:
                files[rule] = _file_of(name, learned[rule]["file"], run, kind, number, sizes, at)
    return Calibration(name, origin, digest, rows, earlier, learned, files, run.columns)


def makers(workspace: Workspace, columns: Mapping[str, Column]) -> dict[Family, dict[str, str]]:
    """Family → what made its columns, of families whose numbers depend on more than their settings.

    The model and its weights of an embedding, the digest of what a scorer has learned of its pool.
    """
    found: dict[Family, dict[str, str]] = {}
    for family in sorted({c.family for c in columns.values()}):
        if family.kind == "embeddings" and workspace.exists(layout.embedding_model(family.name)):
            model = workspace.read_json(layout.embedding_model(family.name))
            found[family] = {k: str(model[k]) for k in ("model", "weights") if k in model}
        elif family.kind == "scores":
            refs = RecordStore(workspace).outputs(f"learn/{family.name}")
            if layout.learned(family.name) in refs:
                found[family] = {"learned.npz": refs[layout.learned(family.name)].digest}
    return found


def _read(origin: Workspace, path: str, name: str, place: str) -> bytes:
    """``learned.json`` of the experiment."""
    try:
        if origin.exists(path):
            return origin.read_bytes(path)
        if not origin.exists(""):
            raise UserError(f"{place}: {origin.url}: no such workspace")
        have = ", ".join(origin.folders(layout.SELECTIONS)) or "none"
    except OSError as error:
        raise UserError(f"{place}: {origin.url}: cannot be read ({error})") from None
    except UserError as error:
        raise UserError(str(error).replace("workspace: cannot open", f"{place}: cannot open")) from None
    raise UserError(
        f"{place}: {origin.url} has no selections/{name}/{LEARNED} (selections there: {have}); run filter "
        f"there with an experiment of the name '{name}'"
    )


def _settings(run: ExperimentRun) -> dict[str, Any]:
    """The settings that were in force there, with the defaults that keys have here."""
    facts = {**run.as_config().facts(), "order": run.settings["order"]}
    for name, rule in facts["rules"].items():
        stored = run.settings["rules"][name]
        code = {key: stored[key] for key in stored.keys() - as_written(stored).keys()}
        facts["rules"][name] = {**as_written(rule), **code}
    return facts


def _difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """What is another thing there, in words; empty when all that decides what is learned is the same."""
    for name in ours["order"]:
        if name not in theirs["rules"]:
            return f"has no rule '{name}'"
        changes = describe_changes(_content(theirs["rules"][name]), _content(ours["rules"][name]))
        if changes:
            return f"rule '{name}' was another one there: {', '.join(changes)}"
    for name in theirs["order"]:
        if name not in ours["rules"]:
            return f"has a rule '{name}' that this experiment lacks"
    if ours["order"] != theirs["order"]:
        return f"its rules stand in another order: {', '.join(theirs['order'])}"
    keeps = [facts["keep"] or {"all": facts["order"]} for facts in (theirs, ours)]
    if keeps[0] != keeps[1]:
        return f"`keep` was another one there: {written(keeps[0])} → {written(keeps[1])}"
    return ""


def _content(rule: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a rule with what is in its files rather than where they lie."""
    settings = RULES.kind_of(as_written(rule))
    files = settings.file_keys if settings else {}
    return {key: value for key, value in rule.items() if not rule.get(files.get(key, ""))}


def _checked(learned: Any, rule: Rule, at: str) -> dict[str, Any]:
    """What a rule learned, without what else ``learned.json`` says about it."""
    if not isinstance(learned, Mapping):
        raise UserError(f"{at}: is missing; run filter there again")
    for key, is_such in _form(rule).values.items():
        if key not in learned or not is_such(learned[key]):
            raise UserError(f"{at}.{key}: cannot be {learned.get(key)!r}; run filter there again")
    if {"uid", "value"} <= learned.keys() and (learned["uid"] is None) != (learned["value"] is None):
        raise UserError(f"{at}.uid: goes with a value, and a value with a uid; run filter there again")
    return {k: v for k, v in learned.items() if k not in ("kind", "expression", "from")}


def _form(rule: Rule) -> LearnedForm:
    form: LearnedForm = rule.load_implementation().learned_form(rule)
    return form


def _file_of(
    name: str, file: str, run: ExperimentRun, rule: Rule, number: int, sizes: Mapping[str, int], at: str
) -> FileRef:
    """The file that a rule learned, as its ``learned.json`` says it is."""
    known = run.files.get(file)
    if file != file_name(_form(rule).file, number) or not isinstance(known, Mapping):
        raise UserError(f"{at}.file: {LEARNED} has no digest of {file!r}; run filter there again")
    path = layout.selection_file(name, file)
    ref = FileRef(path, int(known["size"]), str(known["digest"]))
    if sizes.get(path) != ref.size:
        raise UserError(
            f"{at}.file: {file}, which belongs beside {LEARNED}, is missing or has another size; copy the "
            "whole folder, or run filter there again"
        )
    return ref


def _alike(a: str, b: str) -> bool:
    """Whether numbers and texts of one type are those of the other: integers of any width are."""
    return a == b or bool(_INTEGERS.fullmatch(a) and _INTEGERS.fullmatch(b)) or {a, b} <= _TEXTS


_TEXTS = {"string", "large_string", "string_view"}

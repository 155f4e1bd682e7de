"""What the page says, as plain values for the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from curate import __version__
from curate.dataset.account import Step
from curate.engine.progress import duration_text
from curate.pages import html
from curate.pages.words import is_unsafe
from curate.report.account import overlap_table, parts_table
from curate.report.cards import Card
from curate.report.charts import SIGNS, aspects, histogram, number, size_map
from curate.report.collect import SIZES, PoolStatistics, ReportPlan
from curate.report.picking import Gallery, Pick
from curate.report.statistics import Groups
from curate.rules.account.reading import Account, RuleAccount
from curate.text.numbers import percent

LISTED = 12
"""Hosts and languages that are listed."""

FOUND = {
    "parse": ("found", "links and rows read from the sources"),
    "ingest": ("candidates", "distinct pairs of URL and text that passed the cheap rules"),
    "download": ("images", "fetched, decoded and resized"),
    "filter": ("kept", "passed the rules of this experiment"),
    "export": ("written", "rows of the exported shards, repeats counted"),
}
"""Verb → what comes out of it, in one word and in some."""

REASONS = {
    "missing_score": "a rule had no value to judge by",
    "not_selected": "dropped by the combination of rules",
    "missing_member": "the tar has no image for it",
    "no_text": "no alt text",
    "not_stored": "the existing embeddings have no such row",
    "bad_vector": "the stored vector is zero or not finite",
    "conflicting_vectors": "several stored rows that do not agree",
    "no_url": "no URL",
    "bad_url": "the URL does not parse",
    "bad_scheme": "neither http nor https",
    "private_address": "the host is not public",
    "opt_out": "asked not to be used",
    "dns": "the host has no address",
    "duplicate": "same text and URL as another",
}


@dataclass(frozen=True)
class Facts:
    """Everything that the page is made from."""

    experiment: str
    title: str | None
    steps: Sequence[Step]
    account: Account
    found: PoolStatistics
    plan: ReportPlan
    cards: Mapping[Pick, Card]
    models: Mapping[str, Mapping[str, Any]]
    config: str


def render(facts: Facts) -> str:
    """The page. Everything that comes from the web is escaped by the template."""
    return html.render("curate.report", "report", view(facts))


def view(facts: Facts) -> dict[str, Any]:
    """All values that the template reads."""
    found = facts.found
    parts = facts.account.parts
    told = {p.column for p in parts}
    return {
        "title": facts.title or facts.experiment,
        "experiment": facts.experiment,
        "description": facts.account.description,
        "headline": _headline(facts),
        "levels": _levels(facts.steps),
        "blocks": [_block(s) for s in facts.steps if s.verb not in ("embed", "score") and s.drops],
        "side": [_block(s) for s in facts.steps if s.verb in ("embed", "score") and s.drops],
        "failed": [s for s in facts.steps if s.failed],
        "rules": [_rule(r, found.samples) for r in facts.account.rules],
        "overlap": overlap_table(facts.account.overlap),
        "parts": [parts_table(p) for p in parts],
        "keep": facts.account.keep,
        "histograms": _histograms(facts),
        "galleries": _galleries(facts),
        "languages": _groups(None if facts.plan.language in told else found.languages),
        "language_column": facts.plan.language,
        "hosts": _groups(found.hosts),
        "aspects": _aspects(found),
        "sizes": size_map(found.sizes, SIZES) if found.sizes is not None and found.sizes.any() else "",
        "times": _times(facts.steps),
        "models": {alias: _plain(card) for alias, card in facts.models.items()},
        "versions": sorted({v for s in facts.steps for v in s.versions} | {__version__}),
        "config": without_secrets(facts.config),
        "samples": found.samples,
        "kept": found.kept,
    }


def _by_verb(steps: Sequence[Step]) -> dict[str, Step]:
    return {s.verb: s for s in steps}


def _headline(facts: Facts) -> list[dict[str, Any]]:
    steps, found = _by_verb(facts.steps), facts.found
    what = "images" if "download" in steps else "samples"
    numbers = [
        ("kept", found.kept, f"{percent(found.kept / found.samples)} of the {what}" if found.samples else "")
    ]
    if "download" in steps:
        of = steps["download"].rows_in
        share = f"{percent(steps['download'].rows_out / of)} of the candidates" if of else ""
        numbers += [("images", found.samples, share), ("candidates", of, "")]
    else:
        numbers += [("samples", found.samples, "")]
    if "parse" in steps:
        numbers += [("found", steps["parse"].rows_in, "links and rows in the sources")]
    return [{"label": label, "n": n, "note": note} for label, n, note in numbers]


def _levels(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """The rows that are left after each step, on one scale."""
    known = _by_verb(steps)
    rows: list[tuple[str, str, int]] = []
    if "parse" in known:
        rows.append((*FOUND["parse"], known["parse"].rows_in))
    elif "ingest" in known or "download" in known:
        rows.append(
            (
                "candidates",
                "rows of the sources",
                known.get("ingest", known.get("download", steps[0])).rows_in,
            )
        )
    for verb in ("ingest", "download", "filter"):
        if verb in known:
            rows.append((*FOUND[verb], known[verb].rows_out))
    if "export" in known and "filter" in known and known["export"].rows_out != known["filter"].rows_out:
        rows.append((*FOUND["export"], known["export"].rows_out))
    top = max((n for _, _, n in rows), default=0) or 1
    levels = []
    for i, (label, note, n) in enumerate(rows):
        before = rows[i - 1][2] if i else 0
        levels.append(
            {
                "label": label,
                "note": note,
                "n": n,
                "width": 100 * n / top,
                "of_first": n / rows[0][2] if rows[0][2] else None,
                "of_before": n / before if before and label != "written" else None,
            }
        )
    return levels


def _block(step: Step) -> dict[str, Any]:
    """One step with every reason."""
    reasons = [
        {"name": name, "n": n, "share": n / step.rows_in, "note": REASONS.get(name, "")}
        for name, n in step.drops.items()
        if n
    ]
    return {
        "stage": step.stage,
        "rows_in": step.rows_in,
        "rows_out": step.rows_out,
        "share": step.rows_out / step.rows_in if step.rows_in else 0.0,
        "lost": step.rows_in - step.rows_out,
        "reasons": reasons,
        "scale": max(0.1, *(n / step.rows_in for n in step.drops.values() if n)),
    }


def _rule(rule: RuleAccount, samples: int) -> dict[str, Any]:
    def share(n: int | None) -> float:
        return 100 * n / samples if n and samples else 0.0

    return {
        "name": rule.name,
        "words": rule.words,
        "sql": rule.sql,
        "passed": rule.passed,
        "failed": rule.failed,
        "missing": rule.missing,
        "alone": rule.alone,
        "in_sequence": rule.in_sequence,
        "unique": rule.unique,
        "cut": _cut(rule),
        "widths": [share(rule.passed), share(rule.failed), share(rule.missing)],
    }


def _cut(rule: RuleAccount) -> str:
    """Where a threshold lies; the value of a ``where`` is in its SQL."""
    told = []
    if rule.threshold is not None and not rule.sql:
        told.append(f"cut at {number(rule.threshold)}")
    if rule.quantile is not None:
        told.append(f"quantile {number(rule.quantile)}")
    return ", ".join(told)


def _histograms(facts: Facts) -> list[dict[str, Any]]:
    drawn = []
    for column, bins in facts.found.histograms.items():
        if not bins.counts.any():
            continue
        cuts = [each for each in facts.plan.cuts if each.cut.column == column]
        drawn.append(
            {
                "column": column,
                "svg": histogram(
                    bins, [each.cut for each in cuts], f"Histogram of {column}, kept and dropped samples"
                ),
                "rules": list(dict.fromkeys(each.rule for each in cuts)),
                "missing": int(bins.missing.sum()),
                "outside": bins.outside,
                "log": bins.log,
            }
        )
    return drawn


def _aspects(found: PoolStatistics) -> str:
    if found.aspects is None or not found.aspects.counts.any():
        return ""
    return aspects(found.aspects)


def _galleries(facts: Facts) -> list[dict[str, Any]]:
    shown = []
    for reason, gallery in facts.found.galleries.items():
        if gallery.picks:
            kept = reason == "kept"
            shown.append(
                {
                    "kind": "kept" if kept else "dropped",
                    "name": reason,
                    "note": "" if kept else REASONS.get(reason, ""),
                    "seen": gallery.seen,
                    "cards": _cards(facts, gallery, is_unsafe(reason)),
                }
            )
    for near, (below, above) in facts.found.near.items():
        if below.picks or above.picks:
            unsafe = is_unsafe(near.rule) or is_unsafe(near.cut.column)
            shown.append(
                {
                    "kind": "near",
                    "name": near.rule,
                    "column": near.cut.column,
                    "cut": f"{SIGNS[near.cut.op]} {number(near.value)}",
                    "below": list(reversed(_cards(facts, below, unsafe))),
                    "above": _cards(facts, above, unsafe),
                }
            )
    return shown


def _cards(facts: Facts, gallery: Gallery, unsafe: bool) -> list[dict[str, Any]]:
    made = [facts.cards[pick] for pick in gallery.picks]
    return [
        {
            "uid": c.uid,
            "text": c.text,
            "picture": c.picture,
            "link": c.link,
            "host": c.host,
            "values": c.values,
            "reason": c.reason,
            "unsafe": unsafe or c.unsafe,
        }
        for c in made
    ]


def _groups(groups: Groups | None) -> dict[str, Any]:
    if groups is None or not groups.samples:
        return {"rows": [], "names": 0, "pruned": False}
    rows = groups.top(LISTED)
    top = rows[0][1]
    return {
        "rows": [
            {
                "name": name,
                "n": n,
                "kept": kept,
                "share": kept / n,
                "widths": [100 * kept / top, 100 * (n - kept) / top],
            }
            for name, n, kept in rows
        ],
        "names": len(groups.samples),
        "pruned": groups.pruned,
    }


def _times(steps: Sequence[Step]) -> dict[str, Any]:
    total = sum(s.seconds for s in steps)
    rows = [
        {
            "stage": s.stage,
            "units": s.units,
            "rows": s.rows_in,
            "time": duration_text(s.seconds),
            "share": 100 * s.seconds / total if total else 0.0,
            "rate": f"{s.rows_in / s.seconds:,.0f}" if s.seconds >= 0.001 else "–",
            "size": size_text(s.bytes_out),
        }
        for s in steps
    ]
    return {"rows": rows, "total": duration_text(total), "size": size_text(sum(s.bytes_out for s in steps))}


def size_text(size: int) -> str:
    """Bytes with a decimal unit."""
    value, units = float(size), ["B", "kB", "MB", "GB", "TB", "PB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" or value >= 100 else f"{value:.1f} {units[0]}"


def _plain(card: Mapping[str, Any]) -> dict[str, str]:
    return {str(k): str(v) for k, v in card.items() if isinstance(v, (str, int, float, bool))}


SECRETS = {"storage_options", "slurm", "proxy"}
"""Settings that may hold passwords and keys."""


def without_secrets(config: str) -> str:
    """A config's YAML with the values of ``SECRETS`` taken out; one that is no YAML is left out whole."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: "(not shown)" if k in SECRETS and v else clean(v) for k, v in value.items()}
        return [clean(v) for v in value] if isinstance(value, list) else value

    try:
        data = yaml.safe_load(config)
    except yaml.YAMLError:
        return ""
    return yaml.safe_dump(clean(data), sort_keys=False, allow_unicode=True) if data else ""

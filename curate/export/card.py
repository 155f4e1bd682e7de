"""The dataset card and its machine-readable twin. The card says nothing that is not in the metadata."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from curate import __version__
from curate.dataset.account import Step
from curate.rules.account.reading import rules_of
from curate.text.numbers import percent

SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
    (10**10, "1B<n<10B"),
    (10**11, "10B<n<100B"),
    (10**12, "100B<n<1T"),
)
"""Upper bound (exclusive) → Hugging Face's size category."""

STEPS = {
    "parse": "read from the crawl",
    "ingest": "sorted and deduplicated",
    "download": "downloaded",
    "embed": "embedded by",
    "score": "scored by",
    "filter": "selected by the rules of",
    "export": "written for",
}

_STAYS = {
    "embed": " (the sample stays, without a similarity)",
    "score": " (the sample stays, without a score)",
}

COLUMNS = {
    "uid": "identity of the sample: md5 of text and URL, 32 hex digits",
    "url": "where the image was found",
    "text": "alt text of the image",
    "width": "width of the stored image, pixels",
    "height": "height of the stored image, pixels",
    "original_width": "width of the image as downloaded, pixels",
    "original_height": "height of the image as downloaded, pixels",
    "sha256": "digest of the image as downloaded",
    "similarity": "cosine of image and text embedding, by the first model",
    "exif": "EXIF of the image as downloaded, JSON (only in the tables, not in the shards)",
    "bytes": "size of the stored image file",
    "title": "title of the image element or page, where there was one",
    "page_url": "page on which the image was found",
    "source": "which source the candidate came from",
    "licence": "licence that the page declared, where it did",
    "opt_out": "whether the page asked not to be used for training",
    "lang": "language of the alt text, at ingest",
    "lang_score": "confidence of the language, at ingest",
    "key": "the sample's key in the shards: the uid, or uid-copy where a sample is repeated",
}


def size_category(rows: int) -> str:
    """Hugging Face's ``size_categories`` of a number of rows."""
    return next((name for bound, name in SIZES if rows < bound), "n>1T")


def metadata(
    *,
    experiment: str,
    steps: Sequence[Step],
    funnel: Mapping[str, Any],
    models: Mapping[str, Mapping[str, Any]],
    columns: Mapping[str, str],
    sizes: Mapping[str, int],
    tars: bool,
    digest: str,
) -> dict[str, Any]:
    """Everything that a program may want to know about an export, as plain JSON values.

    Nothing in it depends on when or where the run was.
    """
    return {
        "experiment": experiment,
        "curate_version": __version__,
        "samples": sum(sizes.values()),
        "shards": len(sizes),
        "tars": tars,
        "outputs": digest,
        "steps": [step.counts() for step in steps],
        "funnel": dict(funnel),
        "models": {alias: dict(card) for alias, card in models.items()},
        "columns": dict(columns),
    }


def dataset_card(facts: Mapping[str, Any]) -> str:
    """A Hugging Face dataset card (Markdown with a YAML head) of an export's metadata."""
    rows, experiment = int(facts["samples"]), str(facts["experiment"])
    parts = [
        _front_matter(facts),
        f"# {experiment}",
        _opening(facts),
        _how_to_read(facts) if rows else "",
        _counts(facts["steps"]),
        _rules(facts["funnel"]),
        _models(facts["models"]),
        _column_table(facts["columns"]),
        _RIGHTS,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(facts: Mapping[str, Any]) -> str:
    head: dict[str, Any] = {
        "pretty_name": str(facts["experiment"]),
        "license": "other",
        "license_name": "rights-remain-with-the-owners-of-the-images",
        "task_categories": ["zero-shot-image-classification", "text-to-image", "image-to-text"],
        "size_categories": [size_category(int(facts["samples"]))],
        "tags": ["image-text-pairs", "common-crawl", "curate"] + (["webdataset"] if facts["tars"] else []),
    }
    if facts["samples"]:
        files = "*.tar" if facts["tars"] else "*.parquet"
        head["configs"] = [{"config_name": "default", "data_files": [{"split": "train", "path": files}]}]
    return "---\n" + yaml.safe_dump(head, sort_keys=False, allow_unicode=True) + "---"


def _opening(facts: Mapping[str, Any]) -> str:
    rows, funnel = int(facts["samples"]), facts["funnel"]
    made = f"made by experiment `{facts['experiment']}` with curate {facts['curate_version']}"
    about = _prose(str(funnel.get("description") or ""))
    if not rows:
        text = (
            f"**The selection is empty**: no image-text pair passed the rules, so there are no shards. "
            f"This card is {made}; the counts below say where the candidates went."
        )
        return f"{about}\n\n{text}" if about else text
    what = "webdataset shards and tables" if facts["tars"] else "tables (without images)"
    text = f"{rows:,} image-text pairs from the web in {facts['shards']:,} {what}, {made}."
    return f"{about}\n\n{text}" if about else text


def _how_to_read(facts: Mapping[str, Any]) -> str:
    last = int(facts["shards"]) - 1
    width = max(5, len(str(last)))
    pattern = f"{0:0{width}d}" if not last else f"{{{0:0{width}d}..{last:0{width}d}}}"
    lines = ["## How to read it", ""]
    if facts["tars"]:
        files = {
            f"{pattern}.tar": "<key>.jpg (or png, webp), <key>.txt, <key>.json",
            f"{pattern}.parquet": "the same samples as a table, all columns",
            f"{pattern}_stats.json": "number of samples of the shard",
            "sizes.json": "number of samples of every shard, for open_clip",
            "sample_ids.npy": "uids as DataComp's sorted pairs of 64-bit halves",
            "metadata.json": "this card for programs",
        }
        indent = max(map(len, files)) + 3
        lines += [
            "Samples are in the order of their uids, which is random with respect to their content. "
            "The key of a sample is its uid; a sample that the selection repeats has the keys "
            "`<uid>-0`, `<uid>-1`, …",
            "",
            "```",
            *(f"{name:<{indent}}{text}" for name, text in files.items()),
            "```",
            "",
            "```python",
            "import webdataset as wds",
            f'samples = wds.WebDataset("{pattern}.tar", shardshuffle=False).decode("pilrgb")',
            'pairs = samples.to_tuple("jpg;png;webp", "txt")',
            "```",
            "",
            "```bash",
            f"python -m open_clip_train.main --dataset-type webdataset --train-data '{pattern}.tar' …",
            "```",
        ]
    else:
        lines += [f"`{pattern}.parquet`: one row per sample, in the order of their uids; no images."]
    return "\n".join(lines)


def _counts(steps: Sequence[Mapping[str, Any]]) -> str:
    if not steps:
        return ""
    lines = ["## What it was made from", "", "| step | rows in | rows out | left out |", "|---|--:|--:|--:|"]
    for step in steps:
        rows, out = int(step["rows_in"]), int(step["rows_out"])
        lines.append(f"| {step_words(step['stage'])} | {rows:,} | {out:,} | {rows - out:,} |")
    kept = {step["stage"].partition("/")[0]: step for step in steps}
    if "filter" in kept and "export" in kept and kept["filter"]["rows_out"] != kept["export"]["rows_in"]:
        samples, repeated = int(kept["filter"]["rows_out"]), int(kept["export"]["rows_in"])
        lines += ["", f"The {samples:,} selected samples are {repeated:,} rows: the selection repeats some."]
    failed = sum(int(step["failed_units"]) for step in steps)
    if failed:
        lines += ["", f"{failed:,} units of work could not be done and are in none of these counts."]
    reasons = [
        f"| {step_words(step['stage'])} | {_code(reason)}{_STAYS.get(step['stage'].partition('/')[0], '')} "
        f"| {n:,} | {percent(n / int(step['rows_in']))} |"
        for step in steps
        for reason, n in step["drops"].items()
    ]
    if reasons:
        lines += ["", "Every reason for which a row was left out:", ""]
        lines += ["| step | reason | rows | of the rows in |", "|---|---|--:|--:|", *reasons]
    return "\n".join(lines)


def step_words(stage: str) -> str:
    """``embedded by b32`` for ``embed/b32``."""
    verb, _, name = stage.partition("/")
    return f"{STEPS.get(verb, verb)} {name}".strip()


def _rules(funnel: Mapping[str, Any]) -> str:
    rules = rules_of(funnel)
    if not rules:
        return ""
    lines = [
        "## Rules",
        "",
        "| rule | keeps | passed | failed | no score | cut at |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for rule in rules:
        numbers = " | ".join("" if n is None else f"{n:,}" for n in (rule.passed, rule.failed, rule.missing))
        says = f"{rule.words} {_code(rule.sql)}" if rule.sql else _prose(rule.words)
        cut = "" if rule.threshold is None else f"{rule.threshold:.6g}"
        lines.append(f"| {_code(rule.name)} | {says} | {numbers} | {cut} |")
    keep = funnel.get("keep")
    if keep:
        lines += ["", f"A sample is kept when {_code(str(keep))} holds; a missing score never passes."]
    return "\n".join(lines)


def _models(models: Mapping[str, Mapping[str, Any]]) -> str:
    if not models:
        return ""
    lines = ["## Models", ""]
    for alias, card in models.items():
        facts = "; ".join(
            f"{_prose(k)} {_code(str(v))}" for k, v in card.items() if isinstance(v, (str, int, float))
        )
        lines.append(f"- **{alias}**: {facts}")
    return "\n".join(lines)


def _column_table(columns: Mapping[str, str]) -> str:
    if not columns:
        return ""
    lines = ["## Columns", "", "| column | type | meaning |", "|---|---|---|"]
    lines += [
        f"| {_code(name)} | {_prose(kind)} | {_prose(meaning_of(name))} |" for name, kind in columns.items()
    ]
    return "\n".join(lines)


def meaning_of(column: str) -> str:
    """What a column holds, in a few words."""
    if column in COLUMNS:
        return COLUMNS[column]
    if column.endswith("_similarity"):
        return f"cosine of image and text embedding, by model {column.removesuffix('_similarity')}"
    return f"of scorer {column.partition('_')[0]}" if "_" in column else "carried along from the source"


def _code(text: str) -> str:
    """Text as inline code that stays within a table cell."""
    if not text.strip():
        return ""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence, pad = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{pad}{_line(text)}{pad}{fence}"


def _prose(text: str) -> str:
    """Text on one line that a reader of Markdown, with HTML in it or not, sees as it is written."""
    safe = html.escape(" ".join(text.split()), quote=False)
    safe = re.sub(r"[\\`*~|\[\]]|(?<!\w)_|_(?!\w)", r"\\\g<0>", safe)
    # At the beginning these would make a heading, a rule or a list.
    return re.sub(r"^(\d*)([-#+=.)])", r"\1\\\2", safe)


def _line(text: str) -> str:
    """Text on one line, with what would end a table cell escaped."""
    return " ".join(text.split()).replace("|", "\\|")


_RIGHTS = """## Rights, opt-out and take-down

The images and texts belong to those who made them; this dataset grants no licence to them. Check what
the law of your place and the licence of each image allow before you use or pass on any of it. The
columns `licence` and `opt_out`, where present, hold what the pages declared.

Pages and servers that asked not to be used (robots meta tags `noai` and `noimageai`, `X-Robots-Tag`
headers) were left out as the settings of the run say; the counts above list them under `opt_out`. Who
finds an image here and wants it removed can name its URL or uid: `curate forget` takes a sample out of
every artefact of the run, and a new export no longer holds it.

Alt texts are what people wrote on the web: they can be wrong, offensive or personal. The filters named
above are statistical; they miss things, and they judge groups of people unequally. Look at the report
of the run before you train on its result."""

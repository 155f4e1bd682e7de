"""A small finished workspace in the documented formats, with pictures drawn by Pillow.

Everything up to the selection of one experiment, as the stages before export and report leave it.
"""

from __future__ import annotations

import io
import json
import random
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw, ImageFilter

from curate.dataset import layout
from curate.dataset.family import CANDIDATES, IMAGES, Family
from curate.dataset.records import Record, RecordStore
from curate.dataset.uid import halves, lower_bound, shard_of, uid_of
from curate.dataset.workspace import FileRef, Workspace, ref_of

EXPERIMENT = "good"
MODELS = ("tiny",)
SCORERS = ("txt", "img", "nsfw")
DIM = 8
RULES: dict[str, dict[str, Any]] = {
    "size": {"where": "img_min_side >= 120 and img_aspect <= 3"},
    "english": {"where": "txt_lang = 'en' and txt_lang_score > 0.5"},
    "nsfw_tag": {"where": "nsfw_tag != 'positive'"},
    "clip": {"where": "similarity >= 0.26"},
}
DESCRIPTION = "English, safe, large enough, and it says what it shows."
REASONS = ("http_404", "http_404", "http_404", "timeout", "dns", "http_403", "opt_out", "decode_error")
HOSTS = ("img.example.com", "cdn.example.org", "static.shop.test", "photos.example.net", "a.b.blog.test")
COLOURS = {"red": "#d1495b", "blue": "#30638e", "green": "#3c887e", "yellow": "#edae49", "violet": "#7b5ea7"}
SHAPES = ("circle", "square", "triangle")
HOSTILE_TEXT = "<script>document.title='owned'</script><img src=x onerror=alert(1)> \"quoted\" & 'more'"
HOSTILE_URL = "https://img.example.com/<script>alert(2)</script>.jpg?a=\"b\"&c='d'"
EVIL_SCHEME = "javascript:alert(3)//x.jpg"


def picture(rng: random.Random, size: tuple[int, int], colour: str, shape: str) -> bytes:
    """A JPEG of one shape before a shaded background."""
    w, h = size
    hue = rng.randrange(256)
    base = Image.linear_gradient("L").resize(size).rotate(rng.choice((0, 90, 180)))
    image = Image.merge(
        "HSV", [Image.new("L", size, hue), Image.new("L", size, 60), base.point(lambda v: 120 + v // 2)]
    )
    image = image.convert("RGB")
    draw = ImageDraw.Draw(image)
    r = min(w, h) * rng.uniform(0.2, 0.42)
    x, y = w * rng.uniform(0.4, 0.6), h * rng.uniform(0.4, 0.6)
    box = (x - r, y - r, x + r, y + r)
    if shape == "circle":
        draw.ellipse(box, fill=COLOURS[colour])
    elif shape == "square":
        draw.rectangle(box, fill=COLOURS[colour])
    else:
        draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=COLOURS[colour])
    image = image.filter(ImageFilter.GaussianBlur(0.6))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=88)
    return out.getvalue()


def make_workspace(
    root: Path,
    *,
    shards: int = 3,
    candidates: int = 120,
    seed: int = 0,
    repeats: bool = False,
    empty: bool = False,
    missing: int = 0,
    models: tuple[str, ...] = MODELS,
    scorers: tuple[str, ...] = SCORERS,
) -> Workspace:
    """Write the workspace.

    Args:
        shards: number of shards.
        candidates: candidates in all, spread over the shards by their uids.
        repeats: every third kept sample is kept two or three times.
        empty: the selection keeps nothing.
        missing: how many kept samples have no image member in their tar (first shard).
        models, scorers: column families to write; () for a workspace without them.
    """
    rng = random.Random(seed)
    ws = Workspace(str(root))
    pairs = _pairs(rng, candidates)
    rows = sorted(
        ({"uid": uid_of(t, u), "url": u, "text": t, **x} for u, t, x in pairs), key=lambda r: r["uid"]
    )
    ws.write_json(layout.DATASET, {"shards": shards, "shard_size": 10_000, "candidates": len(rows)})
    ws.write_bytes(layout.CONFIG, b"workspace: ./work\nfilter:\n  experiments:\n    good: {}\n")
    _record(
        ws,
        "parse",
        "00000",
        [],
        len(rows) * 3,
        len(rows) + 4,
        {"no_text": len(rows) * 2 - 6, "language": 2},
        3.5,
    )
    for s in range(shards):
        name = layout.shard_name(s, shards)
        part = [r for r in rows if shard_of(r["uid"], shards) == s]
        table = pa.Table.from_pylist([_candidate(r) for r in part], _CANDIDATE)
        ref = ws.write_table(CANDIDATES.path(name), table)
        duplicates = 4 if s == 0 else 0
        drops = {"duplicate": duplicates} if duplicates else {}
        _record(ws, "ingest", name, [ref], len(part) + duplicates, len(part), drops, 0.25)
        _download(ws, name, part, rng)
        samples = [r for r in part if r["reason"] is None]
        for model in models:
            _embed(ws, model, name, samples, rng)
        _score(ws, name, samples, rng, scorers)
    for model in models:
        facts = {"model": "ViT-Ti-16", "weights": "f00dfeed" * 4, "dim": DIM, "precision": "fp32"}
        ws.write_json(layout.embedding_model(model), facts)
    everything = [r for r in rows if r["reason"] is None]
    _select(ws, shards, everything, rng, repeats, empty, missing, bool(scorers) and bool(models))
    return ws


_CANDIDATE = pa.schema(
    [
        ("uid", pa.string()),
        ("url", pa.string()),
        ("text", pa.string()),
        ("title", pa.string()),
        ("page_url", pa.string()),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("opt_out", pa.bool_()),
    ]
)


def _pairs(rng: random.Random, n: int) -> list[tuple[str, str, dict[str, Any]]]:
    pairs = []
    for i in range(n):
        colour, shape = rng.choice(list(COLOURS)), rng.choice(SHAPES)
        host = rng.choices(HOSTS, weights=(8, 5, 3, 2, 1))[0]
        text = f"a {colour} {shape} before a soft background, number {i}"
        url = f"https://{host}/pictures/{i}.jpg"
        pairs.append((url, text, {"colour": colour, "shape": shape}))
    x = {"colour": "red", "shape": "circle", "sure": True}
    if n >= 10:
        pairs[0] = (HOSTILE_URL, HOSTILE_TEXT, x)
        pairs[1] = (EVIL_SCHEME, "a picture with a javascript: URL", x)
        pairs[2] = (
            "https://xn--fiqs8s.example/зима.jpg",
            "зимний лес под снегом — " + "очень длинно " * 40,
            x,
        )
    return pairs


def _candidate(row: dict[str, Any]) -> dict[str, Any]:
    more = {"title": None, "page_url": "https://example.com/page", "source": "cc", "licence": None}
    return {k: row[k] for k in ("uid", "url", "text")} | more | {"opt_out": False}


def _download(ws: Workspace, shard: str, rows: list[dict[str, Any]], rng: random.Random) -> None:
    table, drops = [], {}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for row in rows:
            failed = rng.random() < 0.3 and "sure" not in row
            row["reason"] = rng.choice(REASONS) if failed else None
            common = {k: v for k, v in _candidate(row).items() if k != "text"} | {"caption": row["text"]}
            if failed:
                drops[row["reason"]] = drops.get(row["reason"], 0) + 1
                table.append(
                    common | {"key": row["uid"], "status": "failed_to_download", "reason": row["reason"]}
                )
                continue
            w, h = rng.choice(((160, 120), (120, 160), (140, 140), (200, 90), (96, 96)))
            image = picture(rng, (w, h), row["colour"], row["shape"])
            scale = rng.choice((1, 2, 4, 7))
            row |= {"width": w, "height": h, "original_width": w * scale, "original_height": h * scale}
            sizes = {k: row[k] for k in ("width", "height", "original_width", "original_height")}
            extra = {"exif": "{}", "sha256": f"{rng.getrandbits(256):064x}", "bytes": len(image)}
            table.append(common | sizes | extra | {"key": row["uid"], "status": "success", "reason": None})
            facts = json.dumps({"uid": row["uid"]}).encode()
            for suffix, data in (("jpg", image), ("json", facts), ("txt", row["text"].encode())):
                info = tarfile.TarInfo(f"{row['uid']}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    refs = [ws.write_table(IMAGES.path(shard), pa.Table.from_pylist(table, _IMAGES))]
    refs.append(ws.write_bytes(layout.image_tar(shard), buffer.getvalue()))
    _record(ws, "download", shard, refs, len(rows), len(rows) - sum(drops.values()), drops, 12.5)


_IMAGES = pa.schema(
    [
        *[field for field in _CANDIDATE if field.name != "text"],
        ("caption", pa.string()),
        ("key", pa.string()),
        ("status", pa.string()),
        ("error_message", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("exif", pa.string()),
        ("sha256", pa.string()),
        ("reason", pa.string()),
        ("bytes", pa.int64()),
    ]
)


def _embed(ws: Workspace, model: str, shard: str, rows: list[dict[str, Any]], rng: random.Random) -> None:
    refs = []
    for modality in ("image", "text"):
        path = layout.embedding(model, modality, shard)
        with ws.writing(path) as temporary:
            with temporary.open("wb") as stream:
                np.save(stream, np.full((len(rows), DIM), DIM**-0.5, np.float16))
            refs.append(ref_of(temporary, path))
    none = 0
    table = []
    for row in rows:
        row["similarity"] = None if rng.random() < 0.03 else rng.gauss(0.27, 0.05)
        if "sure" in row:
            row["similarity"] = 0.35
        none += row["similarity"] is None
        reason = None if row["similarity"] is not None else "decode_error"
        table.append(
            {"uid": row["uid"], "image_path": row["uid"], "caption": row["text"], "url": row["url"]}
            | {"similarity": row["similarity"], "reason": reason}
        )
    schema = pa.schema(
        [
            (n, pa.float32() if n == "similarity" else pa.string())
            for n in ("uid", "image_path", "caption", "url", "similarity", "reason")
        ]
    )
    metadata = pa.Table.from_pylist(table, schema)
    refs.append(ws.write_table(Family.embeddings(model).path(shard), metadata))
    for row, value in zip(rows, metadata["similarity"].to_pylist(), strict=True):
        row["similarity"] = value
    drops = {"decode_error": none} if none else {}
    _record(ws, f"embed/{model}", shard, refs, len(rows), len(rows) - none, drops, 4.0)


def _score(
    ws: Workspace, shard: str, rows: list[dict[str, Any]], rng: random.Random, scorers: tuple[str, ...]
) -> None:
    for row in rows:
        w, h = row["original_width"], row["original_height"]
        row["txt_length"], row["txt_words"] = len(row["text"]), len(row["text"].split())
        row["txt_lang"] = rng.choices(("en", "de", "ru", "zh"), weights=(8, 2, 1, 1))[0]
        row["txt_lang_score"] = rng.uniform(0.4, 1.0)
        row["img_min_side"], row["img_max_side"], row["img_aspect"] = (
            min(w, h),
            max(w, h),
            max(w, h) / min(w, h),
        )
        row["nsfw_score"] = rng.betavariate(1, 6)
        row["nsfw_tag"] = "positive" if row["nsfw_score"] > 0.3 else "negative"
        if "sure" in row:
            row |= {"txt_lang": "en", "txt_lang_score": 0.9, "nsfw_score": 0.1, "nsfw_tag": "negative"}
            row |= {"img_min_side": 500, "img_aspect": 1.0}
    for scorer in scorers:
        names = sorted(n for n in (rows[0] if rows else {}) if n.startswith(f"{scorer}_"))
        columns = {"uid": pa.array([r["uid"] for r in rows], pa.string())}
        columns |= {n: _array([r[n] for r in rows]) for n in names}
        ref = ws.write_table(Family.scores(scorer).path(shard), pa.table(columns))
        _record(ws, f"score/{scorer}", shard, [ref], len(rows), len(rows), {}, 0.5)


def _array(values: list[Any]) -> pa.Array:
    return pa.array(values, pa.float32() if isinstance(values[0], float) else None)


def verdicts(row: dict[str, Any]) -> dict[str, bool | None]:
    """Rule → passed, failed (False) or missing (None), by plain Python."""
    similarity = row["similarity"]
    return {
        "size": row["img_min_side"] >= 120 and row["img_aspect"] <= 3,
        "english": row["txt_lang"] == "en" and row["txt_lang_score"] > 0.5,
        "nsfw_tag": row["nsfw_tag"] != "positive",
        "clip": None if similarity is None else similarity >= 0.26,
    }


def _select(
    ws: Workspace,
    shards: int,
    rows: list[dict[str, Any]],
    rng: random.Random,
    repeats: bool,
    empty: bool,
    missing: int,
    scored: bool,
) -> None:
    said = {r["uid"]: verdicts(r) if scored else dict.fromkeys(RULES, True) for r in rows}
    kept = [] if empty else [r for r in rows if all(said[r["uid"]].values())]
    times = {r["uid"]: (rng.choice((2, 3)) if repeats and i % 3 == 0 else 1) for i, r in enumerate(kept)}
    refs, counts = [], []
    for s in range(shards):
        name = layout.shard_name(s, shards)
        low, high = lower_bound(s, shards), lower_bound(s + 1, shards)
        uids = [r["uid"] for r in kept if low <= r["uid"] < high]
        many = [times[u] for u in uids]
        total = sum(low <= r["uid"] < high for r in rows)
        counts.append({"shard": name, "samples": total, "kept": len(uids), "total": sum(many)})
    refs.append(
        ws.write_table(layout.selection_file(EXPERIMENT, "counts.parquet"), pa.Table.from_pylist(counts))
    )
    if missing:
        _drop_images(ws, [r["uid"] for r in kept][:missing])
    everything = [u for r in kept for u in [r["uid"]] * times[r["uid"]]]
    path = layout.selection_file(EXPERIMENT, "subset.npy")
    with ws.writing(path) as temporary:
        with temporary.open("wb") as stream:
            np.save(stream, halves(pa.array(everything, pa.string())))
        refs.append(ref_of(temporary, path))
    funnel = _funnel(rows, said, kept, empty)
    refs.append(ws.write_json(layout.selection_file(EXPERIMENT, "funnel.json"), funnel))
    if scored:
        refs.append(ws.write_json(layout.selection_file(EXPERIMENT, "learned.json"), _learned(len(rows))))
    _record(ws, f"filter/{EXPERIMENT}", "all", refs, len(rows), len(kept), funnel["reasons"], 0.75)


def _funnel(
    rows: list[dict[str, Any]], said: dict[str, dict[str, bool | None]], kept: list[Any], empty: bool
) -> dict[str, Any]:
    reasons: dict[str, int] = {}
    sequence = dict.fromkeys(RULES, 0)
    for row in rows:
        verdict = said[row["uid"]]
        first = next((name for name in RULES if not verdict[name]), None)
        if first is None:
            if empty:
                reasons["not_selected"] = reasons.get("not_selected", 0) + 1
            continue
        sequence[first] += 1
        reason = "missing_score" if verdict[first] is None else first
        reasons[reason] = reasons.get(reason, 0) + 1
    rules = []
    for name, rule in RULES.items():
        column = [said[r["uid"]][name] for r in rows]
        only = sum(
            not said[r["uid"]][name] and all(v for n, v in said[r["uid"]].items() if n != name) for r in rows
        )
        rules.append(
            {
                "rule": name,
                "kind": "where",
                "expression": rule["where"],
                "in_keep": True,
                "rows_in": len(rows),
                "passed": column.count(True),
                "failed": column.count(False),
                "missing": column.count(None),
                "dropped_alone": len(column) - column.count(True),
                "dropped_in_sequence": sequence[name],
                "uniquely_dropped": only,
            }
        )
    return {
        "experiment": EXPERIMENT,
        "description": DESCRIPTION,
        "rows_in": len(rows),
        "kept": len(kept),
        "keep": f"all({', '.join(RULES)})",
        "reasons": reasons,
        "rules": rules,
    }


def _learned(rows: int) -> dict[str, Any]:
    """``learned.json``: rules of conditions alone learn nothing."""
    settings = {"description": DESCRIPTION, "rules": RULES, "keep": None, "order": list(RULES)}
    columns = {
        "img_min_side": {"family": "scores/img", "type": "int64"},
        "img_aspect": {"family": "scores/img", "type": "float"},
        "txt_lang": {"family": "scores/txt", "type": "string"},
        "txt_lang_score": {"family": "scores/txt", "type": "float"},
        "nsfw_tag": {"family": "scores/nsfw", "type": "string"},
        "similarity": {"family": "embeddings/tiny", "type": "float"},
    }
    rules = {name: {"kind": "where", "expression": rule["where"]} for name, rule in RULES.items()}
    facts = {"format": 1, "experiment": EXPERIMENT, "settings": settings, "rows": rows}
    return facts | {"columns": columns, "rules": rules}


def _drop_images(ws: Workspace, uids: list[str]) -> None:
    """Take the image members of some samples out of their tars, and say so in the record."""
    store = RecordStore(ws)
    for record in list(store.iterate("download")):
        path = layout.image_tar(record.unit)
        buffer = io.BytesIO()
        with (
            ws.open(path) as stream,
            tarfile.open(fileobj=stream) as old,
            tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as new,
        ):
            for member in old:
                if member.name.partition(".")[0] not in uids or not member.name.endswith(".jpg"):
                    new.addfile(member, old.extractfile(member))
        ref = ws.write_bytes(path, buffer.getvalue())
        refs = [ref if r.path == path else r for r in record.outputs]
        _record(
            ws, "download", record.unit, refs, record.rows_in, record.rows_out, record.drops, record.seconds
        )


def _record(
    ws: Workspace,
    stage: str,
    unit: str,
    outputs: list[FileRef],
    rows_in: int,
    rows_out: int,
    drops: dict[str, int],
    seconds: float,
) -> None:
    assert rows_in == rows_out + sum(drops.values()), (stage, unit, rows_in, rows_out, drops)
    RecordStore(ws).write(
        Record(
            stage=stage,
            unit=unit,
            key="k",
            settings={},
            code_version=1,
            inputs_digest="",
            inputs=[],
            outputs=outputs,
            rows_in=rows_in,
            rows_out=rows_out,
            drops=drops,
            seconds=seconds,
            finished="2026-01-01T00:00:00Z",
            version="0",
        )
    )

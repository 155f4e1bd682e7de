"""Where everything lies in a workspace. No other module spells a path."""

from __future__ import annotations

import hashlib
from urllib.parse import quote

DATASET = ".curate/dataset.json"
CONFIG = ".curate/config.yaml"
LOCK = ".curate/lock"
RUNS = ".curate/runs"
INDICES = "index"
EXPORTS = "export"
SELECTIONS = "selections"


def shard_name(index: int, shards: int) -> str:
    """``00042``: at least five digits, as many as the last shard needs."""
    return f"{index:0{max(5, len(str(shards - 1)))}d}"


def spill(unit: str) -> str:
    """Rows of one ingest unit, sorted by uid, before they are cut into shards."""
    return f".curate/spill/{unit}.parquet"


def image_tar(shard: str) -> str:
    """Images of a shard: webdataset, keys are uids."""
    return f"images/{shard}.tar"


def image_stats(shard: str) -> str:
    """img2dataset's counters of a shard."""
    return f"images/{shard}_stats.json"


def embedding(model: str, modality: str, shard: str) -> str:
    """``modality`` is image or text; float16, one row per sample, clip-retrieval's names."""
    kind = {"image": "img_emb", "text": "text_emb"}[modality]
    return f"embeddings/{model}/{kind}/{kind}_{shard}.npy"


def embedding_model(model: str) -> str:
    """What made the vectors: model, weights digest, preprocessing, precision."""
    return f"embeddings/{model}/model.json"


def folded_column(family: object, column: str, key: str) -> str:
    """A column of all shards, one behind the other; may be removed, it is made again."""
    name = quote(column, safe="")
    if len(name) > 100:
        # A file's name has at most 255 bytes, and a temporary one some more.
        name = f"{name[:60]}~{hashlib.blake2b(column.encode(), digest_size=8).hexdigest()}"
    return f".curate/columns/{family}/{name}-{key}.arrow"


def stored_rows(model: str, name: str) -> str:
    """Rows of existing embeddings, sorted by uid, before they are joined with the shards."""
    return f".curate/stored/{model}/{name}.npy"


def stored_list(model: str) -> str:
    """Which files of sorted rows there are, and what is in them."""
    return f".curate/stored/{model}/source.json"


def learned(scorer: str) -> str:
    """What a scorer has learned from all shards before it scores one."""
    return f"scores/{scorer}/learned.npz"


def sheet(scorer: str) -> str:
    """The calibration sheet of a scorer."""
    return f"sheets/{scorer}.html"


def selection_file(experiment: str, name: str) -> str:
    """``counts.parquet``, ``subset.npy``, ``funnel.json``, ``learned.json``, … of an experiment."""
    return f"{SELECTIONS}/{experiment}/{name}"


def grid_file(grid: str, name: str) -> str:
    """``comparison.parquet``, ``overlap.npy``, ``languages.parquet``, ``points.yaml``, … of a grid."""
    return f"grids/{grid}/{name}"


def index_file(experiment: str, model: str, name: str) -> str:
    """``image.index``, ``text.index``, ``uids.npy`` or ``index.json``."""
    return f"{INDICES}/{experiment}/{model}/{name}"


def export_file(experiment: str, name: str) -> str:
    """A file of the exported dataset."""
    return f"{EXPORTS}/{experiment}/{name}"


def report_page(experiment: str) -> str:
    """The report of an experiment."""
    return f"report/{experiment}/index.html"


def record(stage: str, unit: str) -> str:
    """The commit record of one unit of a stage."""
    return f".curate/records/{stage}/{unit}.json"


def folded_records(stage: str) -> str:
    """All records of a finished stage."""
    return f".curate/records/{stage}/folded.parquet"

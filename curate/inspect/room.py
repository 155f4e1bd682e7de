"""How much disk a config will want, roughly: to be said before, not found out."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from curate.config.models import DownloadSettings, PipelineConfig, SourceSettings
from curate.errors import UserError
from curate.ingest.inputs import InputFile, expand_inputs, guess_format

PAIRS_A_WAT = 400_000
"""Pairs of a usual WAT file of Common Crawl before languages are chosen."""

BYTES_A_LINE = 150
"""Of a csv or jsonl with a URL and a caption."""

CANDIDATE_BYTES = 250
"""Of a pair as spill and as candidate, both compressed."""

FOUND = 0.7
"""Share of candidates whose picture is still there; 0.6 to 0.8 for crawls of recent years."""

IMAGE_BYTES = 20_000
"""Of a picture whose shorter side is 256 pixels, as JPEG 95."""

ORIGINAL_BYTES = 150_000
"""Of a picture as it was on the web."""

VECTOR_BYTES = 2 * 2 * 768
"""Image and text of one sample, float16, 768 dimensions."""

FOOTERS = 4
"""Parquet files whose footers are read; the rest is thought to be like them."""


@dataclass(frozen=True)
class Estimate:
    """What a config will make, roughly.

    Attributes:
        pairs: that the sources hold; None where that cannot be told without reading them.
        size: bytes of the workspace, without exports.
    """

    pairs: int | None
    size: int | None


def estimate(config: PipelineConfig) -> Estimate:
    """By the number of files, their sizes and footers; nothing else is read."""
    if config.ingest is None:
        return Estimate(None, None)
    total = 0
    for source in config.ingest.sources:
        pairs = _pairs(source)
        if pairs is None:
            return Estimate(None, None)
        total += pairs
    size = total * (CANDIDATE_BYTES + len(config.embed.models) * VECTOR_BYTES)
    if config.download is not None:
        size += int(total * FOUND * _image_bytes(config.download))
    return Estimate(total, size)


def _image_bytes(download: DownloadSettings) -> int:
    if download.resize_mode == "no":
        return ORIGINAL_BYTES
    return min(ORIGINAL_BYTES, int(IMAGE_BYTES * (download.image_size / 256) ** 2))


def _pairs(source: SourceSettings) -> int | None:
    try:
        files = expand_inputs(source.paths, source.storage_options, prefix=source.prefix)
        kinds = {guess_format(file.url) if source.format == "auto" else source.format for file in files}
    except UserError:
        return None
    if kinds <= {"wat"}:
        return PAIRS_A_WAT * len(files)
    sizes = [file.size for file in files]
    if any(size is None for size in sizes) or not files:
        return None
    known = sum(size or 0 for size in sizes)
    if kinds <= {"parquet"}:
        return _parquet_rows(files, known)
    return known // BYTES_A_LINE if "wat" not in kinds and "parquet" not in kinds else None


def _parquet_rows(files: list[InputFile], size: int) -> int | None:
    rows = read = 0
    for file in files[:FOOTERS]:
        if "://" in file.url:
            return None
        try:
            rows += int(pq.read_metadata(file.url).num_rows)
        except (OSError, pa.ArrowException):
            return None
        read += file.size or 0
    return round(rows * size / max(read, 1))

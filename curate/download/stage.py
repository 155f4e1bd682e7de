"""The download stage: one shard of candidates to one tar of images and the table beside it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from curate.config.models import DownloadSettings
from curate.dataset import layout
from curate.dataset.family import CANDIDATES, IMAGES, need_all_shards
from curate.dataset.records import RecordStore
from curate.dataset.workspace import Workspace, ref_of
from curate.download.fetch import fetch
from curate.download.limits import ImageError
from curate.download.opener import Opener, proxy_of
from curate.download.reasons import classify, describe, tidy
from curate.download.resize import Picture, Shrinker
from curate.download.window import ordered_map
from curate.download.writer import ShardWriter, stored_name, table_schema
from curate.engine.reporting import report
from curate.engine.stage import Outcome, Stage, Unit
from curate.errors import ConfigError, DataError
from curate.reasons import DownloadReason
from curate.samples.columns import HIDDEN_IMAGE_COLUMNS, Column, PlannedColumns

BATCH_ROWS = 1_024
"""Candidates read at a time."""

WAITING_BYTES = 256 << 20
"""Finished images of a worker that may wait for a slower one before them."""


@dataclass(frozen=True)
class Result:
    """What came of one candidate."""

    candidate: Mapping[str, Any]
    picture: Picture | None = None
    error: str = ""
    reason: DownloadReason | None = None
    received: int = 0
    tries: int = 0

    @property
    def weight(self) -> int:
        """Bytes of the stored image."""
        return len(self.picture.data) if self.picture else 0


@dataclass(frozen=True)
class Downloader:
    """Candidate to result, for use in threads."""

    settings: DownloadSettings
    shrink: Shrinker
    opener: Opener = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "opener", Opener(self.settings))

    def __call__(self, candidate: Mapping[str, Any]) -> Result:
        """Fetch and shrink one candidate. Never raises: a row costs itself and no more."""
        received = tries = 0
        try:
            fetched = fetch(candidate["url"], self.settings, self.opener)
            received, tries = fetched.received, fetched.tries
            if fetched.body is None:
                return _failed(candidate, fetched.error, received, tries)
            picture = self.shrink(fetched.body)
            return Result(candidate, picture, picture.damage, received=received, tries=tries)
        except ImageError as error:
            return _failed(candidate, tidy(str(error)), received, tries)
        except Exception as error:  # noqa: BLE001 - an unforeseen failure costs its row and says so
            return _failed(candidate, describe(error), received, tries)


def _failed(candidate: Mapping[str, Any], words: str, received: int, tries: int) -> Result:
    return Result(candidate, None, words, classify(words), received, tries)


class DownloadStage(Stage):
    """Fetches the images of the candidates.

    Raises:
        ConfigError: a combination of settings that no image could be stored with.
    """

    name = "download"
    code_version: ClassVar[int] = 2
    guarded: ClassVar[bool] = True

    def __init__(self, settings: DownloadSettings) -> None:
        _validate(settings)
        self.config = settings
        self.settings = settings.facts()

    def plan_columns(self, planned: PlannedColumns) -> None:
        """Those of the candidates under their names in the image table, and what is known of a picture."""
        schema = table_schema(pa.schema([(name, column.type) for name, column in planned.items()]))
        planned.clear()
        for name, kind in zip(schema.names, schema.types, strict=True):
            if name not in HIDDEN_IMAGE_COLUMNS:
                planned[name] = Column(IMAGES, name, kind)
        planned["text"] = Column(IMAGES, "caption", pa.string())
        planned.untyped = {stored_name(name) for name in planned.untyped}

    def units(self, workspace: Workspace) -> Iterable[Unit]:
        """One unit per shard of candidates."""
        candidates = CANDIDATES.by_shard(RecordStore(workspace).outputs(CANDIDATES.stage))
        need_all_shards(workspace, CANDIDATES, candidates)
        for shard, ref in candidates.items():
            yield Unit(shard, (ref,))

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        """Download one shard."""
        started, clock = time.time(), time.perf_counter()
        shard = unit.name
        work = Downloader(self.config, Shrinker(self.config))
        received = tries = 0
        source = unit.inputs[0].path
        tar_path, table_path = layout.image_tar(shard), IMAGES.path(shard)
        with (
            workspace.local(source) as local,
            workspace.writing(tar_path) as tar,
            workspace.writing(table_path) as table,
        ):
            file = _open(workspace, source, local)
            with (
                ShardWriter(tar, table, file.schema_arrow, self.config.encode_format) as writer,
                closing(
                    ordered_map(work, _rows(file), self._threads(file), lambda r: r.weight, WAITING_BYTES)
                ) as results,
            ):
                for result in results:
                    received += result.received
                    tries += result.tries
                    writer.write(result.candidate, result.picture, result.error, result.reason)
                    report(writer.count, writer.successes, writer.drops)
            refs = [ref_of(tar, tar_path), ref_of(table, table_path)]
        refs.append(workspace.write_json(layout.image_stats(shard), writer.stats(started, time.time())))
        return Outcome(
            outputs=tuple(refs),
            rows_in=writer.count,
            rows_out=writer.successes,
            drops=dict(writer.drops),
            stats={
                "bytes_fetched": received,
                "bytes_stored": writer.stored_bytes,
                "tries": tries,
                "seconds": round(time.perf_counter() - clock, 3),
            },
        )

    def _threads(self, file: pq.ParquetFile) -> int:
        rows = int(file.metadata.num_rows)
        return max(1, min(self.config.threads, rows))


def _open(workspace: Workspace, path: str, local: Any) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(local)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{workspace.url}/{path}: cannot be read as parquet ({error})") from None
    missing = {"uid", "url", "text"} - set(file.schema_arrow.names)
    if missing:
        raise DataError(f"{workspace.url}/{path}: no column '{min(missing)}'; run ingest again")
    return file


def _rows(file: pq.ParquetFile) -> Iterator[dict[str, Any]]:
    for batch in file.iter_batches(batch_size=BATCH_ROWS):
        yield from batch.to_pylist()


def _validate(settings: DownloadSettings) -> None:
    if settings.encode_format == "png" and settings.encode_quality > 9:
        raise ConfigError(
            f"download.encode_quality: for png this is the compression, 0 to 9, not {settings.encode_quality}"
        )
    if not settings.user_agent.isprintable() or not settings.user_agent.isascii() or not settings.user_agent:
        raise ConfigError("download.user_agent: must be one line of printable ASCII characters")
    if settings.proxy:
        try:
            proxy_of(settings.proxy)
        except ValueError:
            raise ConfigError(
                f"download.proxy: '{settings.proxy}' is not an address such as http://127.0.0.1:3128"
            ) from None

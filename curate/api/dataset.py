"""A workspace as an object: its samples, pictures, selections, and what is known of each row."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from curate.api.html import facts_html
from curate.api.samples import Samples
from curate.api.search import Hits
from curate.api.trail import Trail
from curate.dataset import layout
from curate.dataset.account import Step
from curate.dataset.family import CANDIDATES, IMAGES, base_family
from curate.dataset.selections import SUBSET
from curate.dataset.tars import images_of
from curate.dataset.uid import complete_uid, shard_of
from curate.dataset.workspace import Workspace
from curate.errors import UserError
from curate.inspect.known import Known, known_names, last_config
from curate.inspect.status import need_workspace, read_status

if TYPE_CHECKING:
    from PIL import Image

    from curate.config.models import PipelineConfig
    from curate.index.search import Searcher
    from curate.inspect.diff import Difference
    from curate.samples.columns import Column
    from curate.training import LoadedSelection


class Dataset:
    """A workspace that a run has made, to be looked at. Nothing here writes into it.

    Made by ``curate.open``. Of what a run adds later, a new ``Dataset`` knows.

    Args:
        workspace: where it is.

    Raises:
        UserError: there is no workspace, or none that was run.
    """

    def __init__(self, workspace: Workspace) -> None:
        need_workspace(workspace)
        self.workspace = workspace
        self._searchers: dict[tuple[str, str], Searcher] = {}

    @property
    def url(self) -> str:
        """Where it is, as it was given."""
        return self.workspace.url

    @functools.cached_property
    def config(self) -> PipelineConfig:
        """The config of the last run. Raises UserError when none was made."""
        config = last_config(self.workspace)
        if config is None:
            raise UserError(f"{self.url}: no run was made here (no {layout.CONFIG})")
        return config

    @functools.cached_property
    def _known(self) -> Known:
        return known_names(self.workspace, self.config)

    @property
    def experiments(self) -> tuple[str, ...]:
        """Names of the experiments that have a selection."""
        return tuple(
            n for n in self._known.experiments if self.workspace.exists(layout.selection_file(n, SUBSET))
        )

    @property
    def models(self) -> tuple[str, ...]:
        """Aliases of the embedding models; the first one's similarity is the column ``similarity``."""
        return self._known.models

    @property
    def scorers(self) -> tuple[str, ...]:
        """Names of the scorers."""
        return self._known.scorers

    @functools.cached_property
    def _columns(self) -> dict[str, Column]:
        from curate.samples.sources import WorkspaceSamples

        samples = WorkspaceSamples(self.workspace, self.models, self.scorers)
        samples.need()
        return samples.columns()

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """Name → Arrow type of every column of the samples."""
        return {name: column.type for name, column in self._columns.items()}

    @functools.cached_property
    def shards(self) -> tuple[str, ...]:
        """Names of the shards that hold samples, in order of their uids."""
        from curate.samples.committed import Committed

        return tuple(Committed(self.workspace).shards())

    def __len__(self) -> int:
        """How many samples there are: the rows that have an image, or all, in a pool without images."""
        stage = base_family(self.workspace).stage
        return next((step.rows_out for step in self.status() if step.stage == stage), 0)

    def samples(
        self, experiment: str | None = None, columns: Sequence[str] | None = None, where: str | None = None
    ) -> Samples:
        """The samples, or those that an experiment keeps, as a table in whatever form is wanted.

        Nothing is read before it is asked for in a form (``.arrow()``, ``.pandas()``, …).

        Args:
            experiment: keep its samples only; adds the column ``repeats`` when any is kept more than once.
            columns: names; by default all.
            where: a SQL condition (DuckDB) over any columns, such as ``similarity >= 0.3``.

        Raises:
            UserError: no such experiment or column; says which are near.
        """
        return Samples(self.workspace, self._columns, self.shards, self._checked(experiment), columns, where)

    def selection(self, experiment: str) -> LoadedSelection:
        """What an experiment keeps, to filter the samples of a training job. Memory: 16 bytes a sample."""
        from curate.training import load_selection

        return load_selection(self.workspace.location(), self._checked(experiment))

    def image(self, uid: str) -> Image.Image:
        """The stored picture of a sample, decoded.

        Args:
            uid: or the first digits of one, as many as no other sample has.

        Raises:
            UserError: no such sample, or it has no picture.
        """
        import io

        from PIL import Image

        picture = Image.open(io.BytesIO(self.image_bytes(uid)))
        picture.load()
        return picture

    def image_bytes(self, uid: str) -> bytes:
        """The stored picture of a sample as it lies in its tar; see ``image``."""
        whole = self.find(uid)
        shard = layout.shard_name(shard_of(whole, self._shard_count), self._shard_count)
        path = layout.image_tar(shard)
        if self.workspace.exists(path):
            with self.workspace.open(path) as stream:
                for _, _, data in images_of(stream, [whole], f"{self.url}/{path}"):
                    return data
        raise UserError(f"{whole} has no picture; `explain` says why")

    def find(self, prefix: str) -> str:
        """The uid that begins with these digits. Raises UserError when none or several do."""
        base = base_family(self.workspace)

        def uids_of(number: int) -> pa.ChunkedArray | None:
            shard = layout.shard_name(number, self._shard_count)
            path = (IMAGES if base == IMAGES else CANDIDATES).path(shard)
            return self.workspace.read_table(path, ["uid"])["uid"] if self.workspace.exists(path) else None

        return complete_uid(prefix.lower(), self._shard_count, uids_of, "find")

    @functools.cached_property
    def _shard_count(self) -> int:
        return int(self.workspace.read_json(layout.DATASET)["shards"])

    def explain(self, uid: str) -> Trail:
        """What every stage recorded about a sample, and the verdict of every rule of every experiment."""
        from curate.inspect.explain import explain

        return Trail(explain(self.workspace, self.config, uid))

    def query(self, sql: str) -> pa.Table:
        """The result of SQL (DuckDB) over ``samples``, ``candidates``, ``images``, ``scores_…``, …"""
        from curate.inspect.query import run_query

        return run_query(self.workspace, sql)

    def status(self) -> list[Step]:
        """The account of every stage: rows in and out, and every reason."""
        return read_status(self.workspace)

    def diff(self, a: str, b: str, examples: int = 5) -> Difference:
        """Two experiments side by side: what only one keeps and why, and how their columns differ."""
        from curate.inspect.diff import diff

        return diff(self.workspace, self.config, a, b, examples)

    def search(
        self,
        text: str | None = None,
        *,
        image: str | Path | bytes | None = None,
        uid: str | None = None,
        k: int = 10,
        experiment: str | None = None,
        model: str | None = None,
        modality: str = "image",
    ) -> Hits:
        """The nearest samples of an index, by a text, a picture, or a sample.

        Args:
            text, image, uid: just one of them; ``image`` is a path or the bytes of a file.
            experiment: whose index; by default the first that has one.
            model: alias of the model; by default the first.
            modality: whether ``image`` or ``text`` embeddings are searched.

        Raises:
            UserError: not just one question, or no such index.
        """
        if sum(question is not None for question in (text, image, uid)) != 1:
            raise UserError("search: give just one of text, image and uid")
        searcher = self._searcher(experiment, model)
        if text is not None:
            hits = searcher.by_text(text, k, modality)
        elif image is not None:
            hits = searcher.by_image(image, k, modality)
        else:
            hits = searcher.by_uid(str(uid), k, modality)
        return Hits(hits, self.workspace, self._shard_count)

    def _searcher(self, experiment: str | None, model: str | None) -> Searcher:
        from curate.index.search import Searcher, indices

        found = indices(self.workspace)
        for name, alias in sorted(found, key=lambda pair: self._rank(*pair)):
            if experiment in (None, name) and model in (None, alias):
                if (name, alias) not in self._searchers:
                    settings = self.config.embed.models[alias]
                    self._searchers[name, alias] = Searcher(self.workspace, name, alias, settings)
                return self._searchers[name, alias]
        have = ", ".join(f"{name}/{alias}" for name, alias in found) or "none"
        asked = "/".join(filter(None, (experiment, model))) or "any"
        raise UserError(f"search: no index of {asked} (indices: {have}); `curate index` makes them")

    def _rank(self, experiment: str, alias: str) -> tuple[int, int]:
        """In the order of the config."""
        names, aliases = self._known.experiments, self._known.models
        return (
            names.index(experiment) if experiment in names else len(names),
            aliases.index(alias) if alias in aliases else len(aliases),
        )

    def _checked(self, experiment: str | None) -> str:
        if experiment is not None and experiment not in self.experiments:
            have = ", ".join(self.experiments) or "none"
            raise UserError(f"no selection of an experiment named '{experiment}' (there: {have})")
        return experiment or ""

    def close(self) -> None:
        """Give back the files of indices that were searched."""
        for searcher in self._searchers.values():
            searcher.close()
        self._searchers.clear()

    def __repr__(self) -> str:
        facts = self._facts()
        return f"Dataset({self.url!r}: " + ", ".join(f"{k} {v}" for k, v in facts.items() if v) + ")"

    def _facts(self) -> Mapping[str, str]:
        return {
            "samples": f"{len(self):,}",
            "shards": f"{len(self.shards):,}",
            "experiments": ", ".join(self.experiments),
            "models": ", ".join(self.models),
            "scorers": ", ".join(self.scorers),
        }

    def _repr_html_(self) -> str:
        """For a notebook: the facts, and some pictures."""
        head = facts_html(f"Dataset {self.url}", self._facts())
        return head + self.samples().pictures_html()

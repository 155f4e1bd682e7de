"""The settings of every stage, and the pipeline that holds them all.

Each stage reads its own model and nothing else. Descriptions are the documentation:
``curate config keys`` and ``docs/config.md`` are printed from them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from curate.config.base import Name, Settings, knob
from curate.config.embeddings import StoredSource
from curate.config.filters import Experiment
from curate.config.filters.grid import Grid
from curate.config.scorers.base import Scorer
from curate.config.tables import TableSettings


def _told_apart(named: dict[str, Any]) -> dict[str, Any]:
    """Names are told apart without their case: some disks and SQL do not see it."""
    seen: dict[str, str] = {}
    for name in named:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise ValueError(
                f"'{other}' and '{name}' differ only in case, and folders on some disks and names in SQL do "
                "not see case; rename one"
            )
    return named


_TOLD_APART = AfterValidator(_told_apart)


class RunSettings(Settings):
    """How work is executed. Nothing here changes a byte of the output."""

    cluster: str = knob(
        "local",
        "`local` (a Dask cluster on this machine), `synchronous` (this process, for debugging), "
        "`slurm`, or a scheduler address such as `tcp://host:8786`.",
    )
    workers: int | None = knob(None, "Worker processes of a local cluster. Default: one per core.", ge=1)
    memory_limit: str | None = knob(None, "Memory per local worker, e.g. `8GiB`. Default: an equal share.")
    dashboard: str | None = knob(None, "Address of the Dask dashboard, e.g. `:8787`. Default: none.")
    slurm: dict[str, Any] = knob({}, "Arguments of dask_jobqueue.SLURMCluster (queue, cores, memory, …).")
    retries: int = knob(2, "How often a shard that fails is tried again before it is quarantined.", ge=0)
    error_budget: float = knob(
        0.05,
        "Share of a stage's shards that may be quarantined before the run stops.",
        ge=0.0,
        le=1.0,
    )


class SourceSettings(Settings):
    """One source of candidates."""

    paths: tuple[str, ...] = Field(
        min_length=1,
        description="Files, globs, folders or `*.paths(.gz)` lists; local, http(s)://, s3://.",
    )
    format: Literal["auto", "wat", "parquet", "csv", "tsv", "jsonl"] = Field(
        "auto", description="`auto` goes by the file name."
    )
    prefix: str = Field(
        "https://data.commoncrawl.org/", description="Put before the lines of a `*.paths` list."
    )
    url_column: str | None = Field(None, description="Tables: the URL column. Default: the usual names.")
    text_column: str | None = Field(None, description="Tables: the text column. Default: the usual names.")
    uid_column: str | None = Field(None, description="Tables: a column of 32-hex uids to keep (DataComp).")
    extra_columns: tuple[str, ...] = Field((), description="Tables: columns to carry along.")
    swap_width_height: bool = Field(
        False, description="Tables: LAION's WIDTH and HEIGHT are swapped; swap them back."
    )
    storage_options: dict[str, Any] = knob({}, "fsspec options of this source, e.g. `{anon: true}`.")


class IngestSettings(Settings):
    """Sources and the cheap rules that act before a byte is downloaded."""

    sources: tuple[SourceSettings, ...] = Field(
        min_length=1, description="Where candidates come from.", examples=["[{paths: [crawl]}]"]
    )
    shard_size: int = Field(10_000, ge=1, description="Candidates per shard, about.")
    text_repair: Literal["none", "laion"] = Field(
        "none",
        description="`laion`: newline to space, ftfy, non-printables removed, cut at 2,000 characters.",
    )
    min_text_length: int = Field(1, ge=0, description="Characters; shorter alt texts are dropped.")
    max_text_length: int | None = Field(None, ge=1, description="Characters; longer alt texts are dropped.")
    max_url_length: int = Field(2_000, ge=1, description="Characters; longer URLs are dropped.")
    blocked_extensions: tuple[str, ...] = Field((), description="Path endings to drop, e.g. `.svg`.")
    blocked_url_substrings: tuple[str, ...] = Field((), description="Drop URLs that contain one of these.")
    blocked_domains: tuple[str, ...] = Field((), description="Domains to drop, with their subdomains.")
    languages: tuple[str, ...] | None = Field(
        None, description="Keep only these languages (ISO 639-1, by fastText lid.176). Default: all."
    )
    drop_opt_out: bool = Field(True, description="Drop images of pages whose robots meta says noai.")
    inputs_per_unit: int = Field(1, ge=1, description="Input files parsed as one unit of work.")
    batch_rows: int = knob(20_000, "Rows in memory at once while parsing.", ge=1)
    rows_in_memory: int = knob(500_000, "Rows one worker holds before it sorts and spills them.", ge=1_000)


class DownloadSettings(Settings):
    """Fetching, checking and resizing of images, by img2dataset's engine."""

    threads: int = knob(64, "Concurrent requests of one worker.", ge=1)
    timeout: float = Field(10.0, gt=0, description="Seconds without progress on a socket.")
    deadline: float = Field(30.0, gt=0, description="Seconds for one whole request, redirects included.")
    retries: int = Field(1, ge=0, description="Further tries after a timeout, a broken connection or a 5xx.")
    max_bytes: int = Field(20_000_000, ge=1, description="A longer body is `too_large`.")
    min_bytes: int = Field(0, ge=0, description="A shorter body is `body_too_small` (LAION: 5000).")
    max_redirects: int = Field(5, ge=0, description="Redirects followed.")
    user_agent: str = Field(
        "curate-bot/0.1 (+https://pypi.org/project/curate/)", description="Sent with every request."
    )
    opt_out_headers: tuple[str, ...] = Field(
        ("noai", "noimageai", "noindex", "noimageindex"),
        description="X-Robots-Tag directives that mean: do not use. Empty: ask nobody.",
    )
    allow_private_addresses: bool = Field(
        False, description="Fetch from loopback and private addresses (an intranet, a test)."
    )
    proxy: str | None = knob(None, "HTTP proxy for all requests, e.g. `http://127.0.0.1:3128`.")
    image_size: int = Field(256, ge=1, description="Pixels; meaning depends on `resize_mode`.")
    resize_mode: Literal["no", "keep_ratio", "keep_ratio_largest", "center_crop", "border"] = Field(
        "keep_ratio", description="img2dataset's modes. `keep_ratio`: the shorter side becomes `image_size`."
    )
    resize_only_if_bigger: bool = Field(True, description="Never enlarge.")
    encode_format: Literal["jpg", "png", "webp"] = Field("jpg", description="Format of stored images.")
    encode_quality: int = Field(95, ge=0, le=100, description="JPEG/WebP quality, or PNG compression 0-9.")
    skip_reencode: bool = Field(True, description="Keep the bytes of images that need no resize.")
    min_image_size: int = Field(0, ge=0, description="Shorter side of the original, pixels.")
    max_aspect_ratio: float | None = Field(None, ge=1, description="Longer over shorter side.")
    max_pixels: int = Field(89_478_485, ge=1, description="Read from the header, before decoding.")
    truncated: Literal["drop", "keep"] = Field(
        "drop",
        description="Images that end early or are damaged: `drop` them as `decode_error`, or `keep` what "
        "Pillow can read of them (the rest is black or grey; `error_message` says what was wrong).",
    )
    decode_memory: int = Field(
        512 << 20,
        ge=1 << 24,
        description="Bytes that decoding may take at a time in one worker. Images wait for room; one that "
        "alone needs more is `too_many_pixels`.",
    )
    decode_timeout: float = Field(
        30.0, gt=0, description="Seconds for decoding one image; a longer one is `decode_timeout`."
    )


class ModelSettings(StoredSource):
    """One CLIP model of open_clip: by name and tag, hub id, local folder, or checkpoint file."""

    model: str = Field(
        description="`ViT-B-32`, `hf-hub:org/repo`, `local-dir:/path`, or `demo` (the built-in CLIP)."
    )
    pretrained: str | None = Field(
        None, description="A tag (`openai`, `laion2b_s34b_b79k`) or a checkpoint file, with a model name."
    )
    precision: Literal["auto", "fp32", "fp16", "bf16", "pure_fp16", "pure_bf16"] = Field(
        "auto",
        description="`auto`: fp16 on CUDA, fp32 on CPU. `fp16` and `bf16` are autocast; with `pure_…` the "
        "weights are in that type too.",
    )
    preprocess: Literal["fast", "exact"] = Field(
        "fast",
        description="`exact`: the model's own transform on Pillow images. `fast`: the same resize by another "
        "kernel, equal to rounding (cosine of the embeddings above 0.9999).",
    )
    modalities: tuple[Literal["image", "text"], ...] = Field(
        ("image", "text"), min_length=1, description="What to embed; similarity needs both."
    )
    text_model: str | None = Field(
        None,
        description="A sentence-transformers model, by name or folder, that embeds the texts into the space "
        "of this model's images (LAION-5B's multilingual rule).",
    )
    device: Literal["auto", "cpu", "cuda"] = knob("auto", "`auto`: CUDA when present.")
    batch_size: int | None = knob(None, "Samples per forward pass; default 256 on CUDA, 64 on CPU.", ge=1)
    decode_workers: int | None = knob(
        None, "What decodes and tokenises: processes on CUDA (default: the cores), threads on CPU.", ge=1
    )
    compile: bool = knob(False, "`torch.compile` for full batches; where it fails, it is left out.")


class EmbedSettings(Settings):
    """Which models embed images and texts. The first one's similarity is the column `similarity`."""

    models: Annotated[dict[Name, ModelSettings], _TOLD_APART] = Field(
        {}, description="Alias → model; the alias names the folder."
    )


class ScoreSettings(Settings):
    """Named scorers; each adds its own columns, `<name>_…`."""

    scorers: Annotated[dict[Name, Scorer], _TOLD_APART] = Field(
        {}, description="Name → scorer, see `curate config keys`."
    )


class FilterSettings(Settings):
    """Named experiments, each a set of rules over columns."""

    experiments: Annotated[dict[Name, Experiment], _TOLD_APART] = Field({}, description="Name → experiment.")
    grids: Annotated[dict[Name, Grid], _TOLD_APART] = Field(
        {}, description="Name → grid: a table of experiments that `curate filter --grid` compares."
    )
    tables: TableSettings | None = Field(
        None,
        description="Filter these published tables as they are, instead of the workspace's samples: no "
        "ingest, no images, no scores but those of the scorers `text` and `image`.",
    )
    account_by: tuple[str, ...] | None = Field(
        None,
        description="Columns by whose values the account (`funnel.json`) is broken down. Default: `lang`, "
        "`…_lang` and `source`, of an experiment whose rules read them anyway.",
    )


class IndexSettings(Settings):
    """kNN indices over the selection of an experiment."""

    experiments: tuple[str, ...] | None = Field(None, description="Default: all experiments.")
    models: tuple[str, ...] | None = Field(None, description="Default: all models.")
    modalities: tuple[Literal["image", "text"], ...] = Field(("image", "text"), min_length=1)
    type: str = Field("auto", description="`auto` by size, or a faiss factory string such as `IVF256,PQ32`.")
    train_points: int = Field(
        200_000, ge=1, description="At most so many vectors train the index, spread over all shards."
    )
    seed: int = Field(0, description="Of the samples the index is trained and measured with.")
    recall: float = Field(
        0.95,
        gt=0,
        le=1,
        description="Share of the true ten nearest that queries by text, and those by image, should find: "
        "each kind visits as few lists of the index as that takes.",
    )
    queries: str = Field(
        "auto",
        description="Texts to measure that with. `auto`: captions of the selection; where none are embedded, "
        "`prompts`: a list that comes with curate, encoded by the model. Or a file with a text on each line.",
    )


class ExportSettings(Settings):
    """Training shards and tables of a selection."""

    experiments: tuple[str, ...] | None = Field(None, description="Default: all experiments.")
    shard_size: int = Field(10_000, ge=1, description="Samples per training shard.")
    tars: bool = Field(True, description="Write webdataset shards (otherwise only the tables).")


class ReportSettings(Settings):
    """One HTML page per experiment."""

    experiments: tuple[str, ...] | None = Field(None, description="Default: all experiments.")
    samples: int = Field(24, ge=0, description="Pictures per gallery.")
    title: str | None = Field(None, description="Heading of the page.")


def _no_keys() -> Any:
    """A section that is not written; the validator of the whole fills it in, so that it needs none itself."""
    return {}


class PipelineConfig(Settings):
    """Everything a run needs, from sources to report."""

    workspace: str = Field("./work", description="fsspec URL of the folder that holds everything.")
    storage_options: dict[str, Any] = knob({}, "fsspec options of the workspace.")
    plugins: tuple[str, ...] = knob(
        (),
        "Python files that define rules, scorers or sources of your own, relative to this file. They are "
        "run; a changed file is another setting of what it defines.",
    )
    run: RunSettings = Field(default_factory=_no_keys)
    ingest: IngestSettings | None = None
    download: DownloadSettings | None = Field(
        default_factory=_no_keys,
        description="`null`: a pool of metadata only; its candidates are the samples.",
    )
    embed: EmbedSettings = Field(default_factory=_no_keys)
    score: ScoreSettings = Field(default_factory=_no_keys)
    filter: FilterSettings = Field(default_factory=_no_keys)
    index: IndexSettings = Field(default_factory=_no_keys)
    export: ExportSettings = Field(default_factory=_no_keys)
    report: ReportSettings = Field(default_factory=_no_keys)

    def chosen(self, experiments: tuple[str, ...] | None) -> tuple[str, ...]:
        """The experiments that a section names, or all of them."""
        return tuple(self.filter.experiments) if experiments is None else experiments

    @model_validator(mode="after")
    def _references(self) -> PipelineConfig:
        """Every name that one section uses must be defined in another."""
        experiments, models = set(self.filter.experiments), set(self.embed.models)
        for section in ("index", "export", "report"):
            _known(f"{section}.experiments", getattr(self, section).experiments, experiments, "experiment")
        _known("index.models", self.index.models, models, "model")
        for alias, model in self.embed.models.items():
            if self.download is None and not model.source and "image" in model.modalities:
                raise ValueError(
                    f"embed.models.{alias}: there are no images to embed with `download: null`; give "
                    "`source` (existing embeddings), `modalities: [text]`, or a download section"
                )
        for name, scorer in self.score.scorers.items():
            _known(f"score.scorers.{name}.model", scorer.models(), models, "model")
        for name, experiment in self.filter.experiments.items():
            used = experiment.uses()
            _known(f"filter.experiments.{name}", used, experiments, "experiment")
        _acyclic({name: e.uses() for name, e in self.filter.experiments.items()})
        for name, grid in self.filter.grids.items():
            _known(f"filter.grids.{name}.experiments", grid.experiments, experiments, "experiment")
            used = grid.uses(self.filter.experiments)
            _known(f"filter.grids.{name}", used, experiments, "experiment")
        return self


def _known(key: str, names: tuple[str, ...] | None, defined: set[str], what: str) -> None:
    for name in names or ():
        if name not in defined:
            have = ", ".join(sorted(defined)) or "none"
            raise ValueError(f"{key}: no {what} named '{name}' (defined: {have})")


def _acyclic(uses: dict[str, tuple[str, ...]]) -> None:
    def visit(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            raise ValueError("filter.experiments use each other in a circle: " + " → ".join((*trail, name)))
        for other in uses.get(name, ()):
            visit(other, (*trail, name))

    for name in uses:
        visit(name, ())

"""Where the weights of a CLIP come from, settled before anything is built.

open_clip makes random numbers when it is asked for a model without weights, ignores a tag beside a
local folder, and only warns when tag and architecture disagree about the activation. Each of these
ends here, in one line that says what to write instead.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from curate.clip.hub import why_not
from curate.config.models import ModelSettings
from curate.errors import UserError
from curate.network import why_not_url

CONFIG_FILE = "open_clip_config.json"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
_HUB_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_TOKENIZER_PREFIXES = ("tokenizer", "vocab", "merges", "special_tokens", "spiece", "sentencepiece")


@dataclass(frozen=True)
class Source:
    """A model that can be built: an open_clip name and a weights file that exists.

    Attributes:
        name: what open_clip's factories take (``ViT-B-32``, ``local-dir:…``, ``hf-hub:…``).
        weights: the file with the tensors.
        pretrained: what goes with a bare architecture name; None where the name says it all.
        quick_gelu: the tag's weights were trained with QuickGELU whatever the architecture says.
        preprocess: the tag's mean, std, interpolation and resize mode, over the architecture's.
        companions: further files that decide what comes out (configuration, tokenizer).
    """

    name: str
    weights: Path
    pretrained: str | None = None
    quick_gelu: bool = False
    preprocess: dict[str, Any] = field(default_factory=dict)
    companions: tuple[Path, ...] = ()


Fetch = Callable[[], Source]


def resolve(settings: ModelSettings) -> Source:
    """Find the weights, fetching them into the hub's cache when the settings name a hub.

    Raises:
        UserError: no such model, tag, folder or file; no weights; the hub cannot be reached.
    """
    found = _find(settings)
    return found() if callable(found) else found


def check(settings: ModelSettings) -> None:
    """Whether ``resolve`` can find the weights; nothing is fetched, a hub is asked once, for five seconds.

    Raises:
        UserError: as ``resolve``.
    """
    _find(settings)


def _find(settings: ModelSettings) -> Source | Fetch:
    """The weights that are there, or what fetches those that are not."""
    model, pretrained = settings.model, settings.pretrained
    if model == "demo":
        _no_tag(settings)
        return _local(Path(str(resources.files("curate.demo"))) / "clip", "demo")
    if model.startswith("local-dir:"):
        _no_tag(settings)
        return _local(Path(model.removeprefix("local-dir:")).expanduser(), model)
    if model.startswith("hf-hub:"):
        _no_tag(settings)
        return _hub(model.removeprefix("hf-hub:"))
    return _named(model, pretrained)


def checkpoint_digest(source: Source) -> str:
    """128-bit digest of the weights file and of the small files beside it that matter.

    Says whether the checkpoint at a path is still the one that made some vectors, without building
    the model. About a second per gigabyte, once per process while the file does not change.
    """
    files = (source.weights, *source.companions)
    hasher = hashlib.blake2b(digest_size=16)
    for path in files:
        status = path.stat()
        # What was written just now may be written again before the clock's next tick.
        digest = _file_digest if time.time() - status.st_mtime > 2 else _file_digest.__wrapped__
        hasher.update(digest(path, status.st_size, status.st_mtime_ns))
    return hasher.hexdigest()


@functools.lru_cache(maxsize=64)
def _file_digest(path: Path, size: int, changed: int) -> bytes:
    hasher = hashlib.blake2b(digest_size=16)
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            hasher.update(block)
    return hasher.digest()


def _no_tag(settings: ModelSettings) -> None:
    if settings.pretrained is not None:
        raise UserError(
            f"embed.models: `pretrained: {settings.pretrained}` goes with an architecture name such as "
            f"ViT-B-32; '{settings.model}' brings its own weights, so remove it"
        )


def _local(folder: Path, model: str) -> Source:
    if not folder.is_dir():
        raise UserError(f"embed.models: model '{model}': no such folder {folder}")
    config = folder / CONFIG_FILE
    if not config.is_file():
        raise UserError(f"embed.models: model '{model}': {folder} has no {CONFIG_FILE}")
    try:
        known = "model_cfg" in json.loads(config.read_text("utf-8"))
    except (ValueError, TypeError) as error:
        raise UserError(f"embed.models: model '{model}': {config} is not valid JSON ({error})") from None
    if not known:
        raise UserError(f"embed.models: model '{model}': {config} has no `model_cfg`")
    from open_clip.factory import _find_checkpoint_in_dir

    found = _find_checkpoint_in_dir(folder)
    if found is None:
        raise UserError(
            f"embed.models: model '{model}': {folder} has no weights "
            f"(expected open_clip_model.safetensors, or another of {', '.join(WEIGHT_SUFFIXES[:3])})"
        )
    tokenizer = [p for p in folder.iterdir() if p.is_file() and p.name.startswith(_TOKENIZER_PREFIXES)]
    return Source(f"local-dir:{folder}", Path(found), companions=(config, *sorted(tokenizer)))


def _hub(repository: str) -> Source | Fetch:
    name = f"hf-hub:{repository}"
    config, weights = _cached(repository, CONFIG_FILE), _cached_weights(repository)
    if config and weights:
        return Source(name, weights, companions=(Path(config),))
    if why := why_not(repository, CONFIG_FILE):
        raise _unreachable(name, why)

    def fetch() -> Source:
        from open_clip.pretrained import download_pretrained_from_hf

        with _fetching(name):
            there = Path(config or download_pretrained_from_hf(repository, CONFIG_FILE))
            return Source(name, weights or Path(download_pretrained_from_hf(repository)), companions=(there,))

    return fetch


def _named(model: str, pretrained: str | None) -> Source | Fetch:
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    name = model.replace("/", "-")
    if name not in open_clip.list_models():
        raise UserError(f"embed.models: no model named '{model}'{_nearest(name, open_clip.list_models())}")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained is None:
        raise UserError(
            f"embed.models: model '{model}' needs weights: add `pretrained:` with a checkpoint file or one "
            f"of the tags {', '.join(tags) or '(none is published)'}"
        )
    tag = get_pretrained_cfg(name, pretrained)
    if not tag:
        path = Path(pretrained).expanduser()
        if path.is_file():
            return Source(name, path, str(path))
        raise UserError(
            f"embed.models: '{pretrained}' is neither a file nor a tag of '{model}'"
            f"{_nearest(pretrained, tags)}; tags: {', '.join(tags) or 'none'}"
        )

    def source(weights: Path) -> Source:
        wanted = ("mean", "std", "interpolation", "resize_mode", "fill_color")
        preprocess = {key: tag[key] for key in wanted if key in tag}
        return Source(name, weights, str(weights), bool(tag.get("quick_gelu")), preprocess)

    return _tagged(tag, f"{model} {pretrained}", source)


def _tagged(tag: Mapping[str, Any], name: str, source: Callable[[Path], Source]) -> Source | Fetch:
    """Weights that open_clip knows by a tag: in the hub's cache, or to be fetched."""
    repository, _, file = str(tag.get("hf_hub", "")).rpartition("/")
    found = (_cached(repository, file) if file else _cached_weights(repository)) if repository else None
    if found:
        return source(Path(found))
    if why := why_not(repository, file or _HUB_WEIGHTS[-1]) if repository else why_not_url(str(tag["url"])):
        raise _unreachable(name, why)

    def fetch() -> Source:
        from open_clip.pretrained import download_pretrained

        with _fetching(name):
            return source(Path(download_pretrained(dict(tag))))

    return fetch


@contextlib.contextmanager
def _fetching(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the hub's client has no closed set of errors
        said = str(error).strip()
        raise _unreachable(name, said.splitlines()[0][:200] if said else type(error).__name__) from None


def _cached(repository: str, file: str) -> str | None:
    """A file of the hub's cache, without asking the hub (whose client retries for a minute offline)."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file)
    return found if isinstance(found, str) else None


def _cached_weights(repository: str) -> Path | None:
    return next((Path(found) for name in _HUB_WEIGHTS if (found := _cached(repository, name))), None)


def _unreachable(name: str, why: str) -> UserError:
    return UserError(
        f"embed.models: the weights of '{name}' cannot be fetched ({why}). Fetch them where there is a "
        "network and give a local path: `model: local-dir:/folder` with open_clip_config.json and the "
        "weights, or `pretrained: /path/to/checkpoint` beside the architecture's name"
    )


def _nearest(name: str, names: Iterable[str]) -> str:
    lower = {n.lower(): n for n in names}
    near = [lower[n] for n in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)]
    return f"; did you mean {' or '.join(near)}?" if near else ""

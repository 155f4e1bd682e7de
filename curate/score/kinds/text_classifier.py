"""``type: text_classifier``: classifiers of transformers on the alt text, a probability per label.

A sample's numbers must not depend on its neighbours: a caption is padded to the next of a few lengths
that it alone decides, and every forward pass of a length has the same shape.
"""

from __future__ import annotations

import functools
import importlib.util
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from curate.config.scorers.text_classifier import TextClassifierScorer
from curate.dataset import external
from curate.errors import UserError
from curate.score.classifiers import Activation, Outputs, choose_outputs, fetch_from_hub, first_line
from curate.score.contract import Columns, ColumnScorer, Shard, blocks
from curate.score.devices import device_of, one_thread

if TYPE_CHECKING:
    import torch

DETOXIFY = (
    "toxicity",
    "severe_toxicity",
    "obscene",
    "identity_attack",
    "insult",
    "threat",
    "sexual_explicit",
)
"""The first seven outputs of Detoxify's unbiased and multilingual models; nine identities follow."""

LONGEST = 512
BLOCK = 8192
"""Captions in memory at once."""

_SETTLED = ("config.json", "tokenizer*", "vocab*", "merges*", "special_tokens*", "added_tokens*", "*.model")
_SAFE = ("model*.safetensors", "model.safetensors.index.json")
_TORCH = ("pytorch_model*.bin", "pytorch_model.bin.index.json")
_SHIFTED = ("roberta", "camembert", "mpnet", "longformer")
"""Families whose positions begin behind the padding token's number."""


@dataclass(frozen=True)
class TextModel:
    """A loaded classifier.

    Attributes:
        forward: ids and mask (n, length) → outputs (n, classes), on the device.
        tokenizer: of transformers.
        lengths: lengths that captions are padded to, ascending; the last one is the most it reads.
        outputs: what the outputs are.
        device: where it runs.
    """

    forward: Callable[..., Any]
    tokenizer: Any
    lengths: tuple[int, ...]
    outputs: Outputs
    device: torch.device

    def scores(self, texts: Sequence[str], batch_size: int) -> npt.NDArray[np.float32]:
        """Texts → probabilities of the labels, float32 (n, labels)."""
        out = np.zeros((len(texts), len(self.outputs.labels)), np.float32)
        for rows, logits in self._batches(texts, batch_size) if texts else ():
            out[rows] = self.outputs.chosen(logits)
        return out

    def _batches(
        self, texts: Sequence[str], batch_size: int
    ) -> Iterator[tuple[list[int], npt.NDArray[np.float32]]]:
        import torch

        tokens = self.tokenizer(list(texts), truncation=True, max_length=self.lengths[-1])
        by_length: dict[int, list[int]] = defaultdict(list)
        for row, ids in enumerate(tokens["input_ids"]):
            by_length[next(n for n in self.lengths if n >= len(ids))].append(row)
        for length, rows in sorted(by_length.items()):
            for start in range(0, len(rows), batch_size):
                batch = rows[start : start + batch_size]
                filled = batch + batch[-1:] * (batch_size - len(batch))
                chosen = {name: [values[row] for row in filled] for name, values in tokens.items()}
                padded = self.tokenizer.pad(
                    chosen, padding="max_length", max_length=length, return_tensors="pt"
                )
                with one_thread(), torch.inference_mode():
                    out = self.forward(**padded.to(self.device)).logits.float().cpu().numpy()
                yield batch, out[: len(batch)]


class TextClassifier(ColumnScorer[TextClassifierScorer]):
    """Probabilities of every caption; null for those that are missing or blank."""

    columns = ("text",)

    def __init__(self, name: str, settings: TextClassifierScorer) -> None:
        super().__init__(name, settings)
        self.gpu = settings.device != "cpu"
        self.files = _digests(_folder(settings, self.place), self.place)

    @property
    def facts(self) -> dict[str, Any]:
        """The settings, with the files' digests in place of where they are."""
        return {**self.settings.facts(), "checkpoint": dict(self.files), "revision": None}

    def score(self, shard: Shard) -> Columns:
        """In blocks of captions, so that memory is bounded."""
        model = load(self.settings, self.files, self.place)
        texts = shard.samples["text"]
        values = np.zeros((len(texts), len(model.outputs.labels)), np.float32)
        missing = np.ones(len(texts), bool)
        for part in blocks(len(texts), BLOCK):
            captions = texts.slice(part.start, part.stop - part.start).to_pylist()
            known = [i for i, caption in enumerate(captions) if caption is not None and caption.strip()]
            rows = [part.start + i for i in known]
            values[rows] = model.scores([captions[i] for i in known], self.settings.batch_size)
            missing[rows] = False
        return model.outputs.columns(values, missing)


@functools.lru_cache(maxsize=2)
def load(settings: TextClassifierScorer, files: tuple[tuple[str, str], ...], place: str) -> TextModel:
    """The classifier that the settings name, once per process.

    Raises:
        UserError: files that changed, no classifier, weights that do not fit, or no such device.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    folder = _folder(settings, place)
    if _digests(folder, place) != files:
        raise UserError(
            f"{place}.checkpoint: {folder} has changed, or is another one on this worker; run again"
        )
    device = device_of(settings.device, place)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # noqa: BLE001 - transformers' errors have no common base
        raise UserError(f"{place}.checkpoint: {folder} cannot be loaded: {first_line(error)}") from None
    if lacking := sorted(info["missing_keys"]):
        # transformers would draw them at random and only warn.
        raise UserError(
            f"{place}.checkpoint: {folder} is no sequence classifier: it has no weights for {lacking[0]}"
        )
    if tokenizer.pad_token_id is None:
        raise UserError(f"{place}.checkpoint: the tokenizer of {folder} has no padding token")
    model.eval().requires_grad_(False)
    lengths = _lengths(_longest(settings, tokenizer, model.config))
    return TextModel(model.to(device), tokenizer, lengths, _outputs(settings, model.config, place), device)


def _outputs(settings: TextClassifierScorer, config: Any, place: str) -> Outputs:
    count = int(config.num_labels)
    given = settings.labels or (DETOXIFY if settings.preset == "detoxify" else ())
    named = [str(config.id2label[i]) for i in range(count)] if config.id2label else []
    activation: Activation = "softmax"
    multi = config.problem_type == "multi_label_classification" or count == 1 or settings.preset is not None
    if settings.activation == "sigmoid" or (settings.activation == "auto" and multi):
        activation = "sigmoid"
    return choose_outputs(count, given, named, settings.keep, activation, place)


def _longest(settings: TextClassifierScorer, tokenizer: Any, config: Any) -> int:
    """Tokens that the model reads of a caption."""
    positions = getattr(config, "max_position_embeddings", None) or LONGEST
    if any(family in config.model_type for family in _SHIFTED):
        positions -= int(config.pad_token_id or 0) + 1
    return int(min(settings.max_length or LONGEST, tokenizer.model_max_length, positions))


def _lengths(longest: int) -> tuple[int, ...]:
    return (*(n for n in (16, 32, 64, 128, 256) if n < longest), longest)


def _folder(settings: TextClassifierScorer, place: str) -> Path:
    """Where the files are, fetched when the settings name a repository of the hub."""
    if importlib.util.find_spec("transformers") is None:
        raise UserError(f"{place}: text classifiers need transformers; pip install 'curate[transformers]'")
    path = Path(settings.checkpoint).expanduser()
    if path.is_dir():
        return path
    if (
        path.exists()
        or settings.checkpoint.startswith((".", "/", "~"))
        or settings.checkpoint.count("/") != 1
    ):
        raise UserError(
            f"{place}.checkpoint: no folder {settings.checkpoint}; a folder with config.json, weights and "
            "tokenizer, or a hub id `org/name`"
        )
    groups = [(*_SETTLED, *_SAFE), (*_SETTLED, *_TORCH)]
    for group in groups:
        folder = fetch_from_hub(settings.checkpoint, [group], settings.revision, f"{place}.checkpoint")
        if any(file for pattern in group[len(_SETTLED) :] for file in folder.glob(pattern)):
            return folder
    raise UserError(f"{place}.checkpoint: '{settings.checkpoint}' has no weights for torch")


def _digests(folder: Path, place: str) -> tuple[tuple[str, str], ...]:
    """Name and digest of the files that decide what comes out, by name."""
    weights = _SAFE if any(folder.glob(_SAFE[0])) else _TORCH
    names = sorted({f.name for pattern in (*_SETTLED, *weights) for f in folder.glob(pattern) if f.is_file()})
    if "config.json" not in names or not any(n.endswith((".safetensors", ".bin")) for n in names):
        raise UserError(f"{place}.checkpoint: {folder} has no config.json or no weights")
    return tuple((name, external.digest(str(folder / name), f"{place}.checkpoint")) for name in names)

"""``type: image_classifier``: classifiers of timm on the stored images, a probability per label.

A sample's numbers must not depend on its neighbours: every forward pass has the same shape, the last one
is filled up with black images.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from curate.config.scorers.image_classifier import ImageClassifierScorer
from curate.dataset import external
from curate.errors import UserError
from curate.score.classifiers import Activation, Outputs, choose_outputs, fetch_from_hub, first_line
from curate.score.contract import Columns, ImageScores, PixelScorer, Shard
from curate.score.devices import device_of, one_thread

if TYPE_CHECKING:
    import torch

Pixels = npt.NDArray[np.uint8]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_WATERMARK: tuple[str, ...] = ("pwatermark", "clear")
_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}
_LONGEST = 16
"""Of images longer than that many times their width only the middle is scaled, where it is cut out anyway."""


@dataclass(frozen=True)
class View:
    """What a model sees of an image.

    Attributes:
        size: side of the input in pixels.
        scale: side to which the image is scaled before the centre is cut out, at least ``size``.
        squash: scale both sides; else the shorter one, and the longer in proportion.
        filter: Pillow's resampling.
        mean: of the channels, 0 to 1.
        std: of the channels.
    """

    size: int
    scale: int
    squash: bool
    filter: Image.Resampling
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def of(self, image: Image.Image) -> Pixels:
        """RGB image → (size, size, 3)."""
        if self.squash:
            image = image.resize((self.scale, self.scale), self.filter)
        else:
            image = self._in_proportion(image)
        left, top = (round((side - self.size) / 2.0) for side in image.size)
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))

    def _in_proportion(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        short, long = min(width, height), max(width, height)
        if long > _LONGEST * short:
            spare = (long - _LONGEST * short) // 2
            box = (spare, 0, width - spare, height) if width > height else (0, spare, width, height - spare)
            image = image.crop(box)
            width, height = image.size
            long = max(width, height)
        sides = (self.scale, int(self.scale * long / short))
        return image.resize(sides if width <= height else sides[::-1], self.filter)


@dataclass(frozen=True)
class Classifier:
    """A loaded model on a device, the image it wants, and what its outputs are."""

    model: Any
    view: View
    outputs: Outputs
    device: torch.device

    def logits(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """Images (n, size, size, 3) → outputs, float32 (n, classes)."""
        import torch

        batch = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float().div(255)
        mean, std = (
            torch.tensor(v, device=self.device).view(3, 1, 1) for v in (self.view.mean, self.view.std)
        )
        with one_thread(), torch.inference_mode():
            out: npt.NDArray[np.float32] = self.model(batch.sub(mean).div(std)).float().cpu().numpy()
        return out


class ImageClassifier(PixelScorer[ImageClassifierScorer]):
    """Probabilities of every image."""

    def __init__(self, name: str, settings: ImageClassifierScorer) -> None:
        super().__init__(name, settings)
        self.file = settings.file or _hub_file(str(settings.architecture), self.place)
        self.digest = external.digest(self.file, f"{self.place}.file")
        self.gpu = settings.device != "cpu"

    @property
    def facts(self) -> dict[str, Any]:
        """The settings, with the weights' digest in place of their file."""
        return {**self.settings.facts(), "file": self.digest}

    def start(self, shard: Shard) -> ImageScores:
        """The model runs whenever a batch is full."""
        return _Batches(
            load(self.settings, self.file, self.digest, self.place), len(shard), self.settings.batch_size
        )


class _Batches:
    def __init__(self, classifier: Classifier, rows: int, batch_size: int) -> None:
        size = classifier.view.size
        self.classifier = classifier
        self.pixels = np.zeros((batch_size, size, size, 3), np.uint8)
        self.waiting: list[int] = []
        self.missing = np.ones(rows, bool)
        self.values = np.zeros((rows, len(classifier.outputs.labels)), np.float32)

    def add(self, row: int, image: Image.Image) -> None:
        self.pixels[len(self.waiting)] = self.classifier.view.of(image)
        self.waiting.append(row)
        if len(self.waiting) == len(self.pixels):
            self._run()

    def columns(self) -> Columns:
        if self.waiting:
            self._run()
        return self.classifier.outputs.columns(self.values, self.missing)

    def _run(self) -> None:
        self.pixels[len(self.waiting) :] = 0
        found = self.classifier.logits(self.pixels)[: len(self.waiting)]
        self.values[self.waiting] = self.classifier.outputs.chosen(found)
        self.missing[self.waiting] = False
        self.waiting = []


@functools.lru_cache(maxsize=2)
def load(settings: ImageClassifierScorer, file: str, digest: str, place: str) -> Classifier:
    """The model that the settings name, once per process.

    Raises:
        UserError: no such architecture, weights that do not fit, or no such device.
    """
    import torch

    state = read_state(external.read(file, f"{place}.file", digest), file, f"{place}.file")
    device = device_of(settings.device, place)
    if settings.preset == "laion_watermark":
        model, view = _watermark_model(), View(256, 256, True, Image.Resampling.BILINEAR, _MEAN, _STD)
        labels, keep = _WATERMARK, settings.keep or _WATERMARK[:1]
    else:
        model, view = _timm_model(settings, state, place)
        labels, keep = settings.labels, settings.keep
    try:
        model.load_state_dict(state, strict=True)
        with torch.inference_mode():
            model.eval().requires_grad_(False)(torch.zeros(1, 3, view.size, view.size))
    except Exception as error:  # noqa: BLE001 - whatever torch and timm make of weights or sizes that do not fit
        what = settings.preset or settings.architecture
        raise UserError(f"{place}.file: {file} does not fit '{what}': {first_line(error)}") from None
    activation: Activation = "sigmoid" if settings.activation == "sigmoid" else "softmax"
    outputs = choose_outputs(model.num_classes, labels, (), keep, activation, place)
    return Classifier(model.to(device), view, outputs, device)


def read_state(data: bytes, file: str, place: str) -> dict[str, torch.Tensor]:
    """Tensors by name, of a safetensors file or a state dict of torch; never runs code of the file.

    Also takes a checkpoint that holds the state dict as ``weights``, ``state_dict`` or ``model``, and
    names that begin with ``module.``.

    Raises:
        UserError: neither.
    """
    import torch

    if data.startswith(b"version https://git-lfs"):
        raise UserError(f"{place}: {file} is a pointer of git-lfs; fetch the file itself: git lfs pull")
    try:
        if file.endswith(".safetensors"):
            from safetensors.torch import load as load_safetensors

            found: Any = load_safetensors(data)
        else:
            found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - what the formats' readers raise has no common base
        raise UserError(f"{place}: {file} holds no weights that can be read: {first_line(error)}") from None
    for key in ("weights", "state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise UserError(f"{place}: {file} is no state dict (tensors by name); save `model.state_dict()`")
    return {str(name).removeprefix("module."): tensor for name, tensor in found.items()}


def _watermark_model() -> Any:
    """LAION's detector: EfficientNet-B3 with a head of three layers; output 0 is "watermark"."""
    import timm
    from torch import nn

    model = timm.create_model("efficientnet_b3", pretrained=False, num_classes=2)
    model.classifier = nn.Sequential(
        nn.Linear(1536, 625), nn.ReLU(), nn.Dropout(0.3), nn.Linear(625, 256), nn.ReLU(), nn.Linear(256, 2)
    )
    return model


def _timm_model(
    settings: ImageClassifierScorer, state: Mapping[str, torch.Tensor], place: str
) -> tuple[Any, View]:
    import timm
    from timm.data.config import resolve_model_data_config

    name = str(settings.architecture)
    config = _pretrained_cfg(name, place)
    heads = config.classifier if isinstance(config.classifier, (tuple, list)) else (config.classifier,)
    bias = next((state[f"{h}.weight"] for h in heads if h and f"{h}.weight" in state), None)
    classes = int(bias.shape[0]) if bias is not None else config.num_classes
    try:
        model = timm.create_model(name, pretrained=False, num_classes=classes)
    except Exception as error:  # noqa: BLE001 - whatever a constructor of timm raises
        raise UserError(f"{place}.architecture: '{name}' cannot be built: {first_line(error)}") from None
    data = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    size = settings.size or int(data["input_size"][-1])
    return model, View(
        size,
        max(size, math.floor(size / data["crop_pct"])),
        (settings.resize or data["crop_mode"]) == "squash",
        _FILTERS.get(data["interpolation"], Image.Resampling.BILINEAR),
        settings.mean or tuple(data["mean"]),
        settings.std or tuple(data["std"]),
    )


def _pretrained_cfg(name: str, place: str) -> Any:
    import difflib

    import timm

    try:
        config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    except Exception as error:  # noqa: BLE001 - an unknown tag of a known model, by timm's version
        raise UserError(f"{place}.architecture: {first_line(error)}") from None
    if config is None:
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "see timm.list_models()"
        raise UserError(f"{place}.architecture: timm has no '{name}'; {hint}")
    return config


def _hub_file(name: str, place: str) -> str:
    """timm's own weights of an architecture."""
    config = _pretrained_cfg(name, place)
    if not config.hf_hub_id:
        raise UserError(f"{place}: timm has no weights for '{name}'; give `file`")
    repository, _, revision = str(config.hf_hub_id).partition("@")
    kinds = ("model.safetensors", "pytorch_model.bin")
    folder = fetch_from_hub(
        repository, [(kind,) for kind in kinds], revision or None, f"{place}.architecture"
    )
    return str(next(folder / kind for kind in kinds if (folder / kind).is_file()))

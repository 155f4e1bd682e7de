from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curate.config.models import EmbedSettings
from curate.config.scorers.text_classifier import TextClassifierScorer
from curate.dataset.family import Family
from curate.dataset.records import RecordStore
from curate.dataset.workspace import Workspace
from curate.engine.plan import make_plan
from curate.errors import UserError
from curate.score.contract import Shard
from curate.score.kinds.text_classifier import DETOXIFY, TextClassifier, load
from curate.score.stage import ScoreStage
from tests.unit.embed.clip_shards import dataset, run_stage, samples

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", reason="needs the extra `transformers`")

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "a",
    "picture",
    "of",
    "thing",
    "bad",
    "good",
    *map(str, range(40)),
]


def save_model(folder: Path, labels: int = 16, seed: int = 0, **config: Any) -> Path:
    """A BERT of two layers with random weights and a vocabulary of 50 words, as from_pretrained wants it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    torch.manual_seed(seed)
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    fast.save_pretrained(folder)
    settings = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=40,
        num_labels=labels,
        initializer_range=0.6,
        **config,
    )
    transformers.BertForSequenceClassification(settings).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("bert"))


def settings_of(folder: Path, **more: Any) -> TextClassifierScorer:
    base = {"type": "text_classifier", "checkpoint": str(folder), "device": "cpu", "batch_size": 4}
    return TextClassifierScorer(**{**base, **more})


def shard_of(texts: list[str | None]) -> Shard:
    table = pa.table({"uid": [str(i) for i in range(len(texts))], "text": pa.array(texts, pa.string())})
    return Shard("00000", table, {}, {}, None)  # type: ignore[arg-type]


def plain_scores(folder: Path, text: str, longest: int = 40) -> np.ndarray:
    """As Detoxify does it, one caption at a time and without padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=longest)
        return torch.sigmoid(model(**inputs).logits[0].double()).numpy()


TEXTS: list[str | None] = [
    "a picture of a bad thing",
    None,
    "good",
    "",
    "  \n",
    "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18",
    "a bad bad picture " * 30,
    "unheard of words",
]


def test_scores_are_those_of_the_model(folder: Path) -> None:
    columns = TextClassifier("tox", settings_of(folder, preset="detoxify")).score(shard_of(TEXTS))
    assert tuple(columns) == DETOXIFY
    for row, text in enumerate(TEXTS):
        values = [columns[name][row].as_py() for name in DETOXIFY]
        if text is None or not text.strip():
            assert values == [None] * 7
        else:
            assert values == pytest.approx(plain_scores(folder, text)[:7].tolist(), abs=1e-5)
    assert {column.type for column in columns.values()} == {pa.float32()}
    spreads = [np.ptp([v for v in column.to_pylist() if v is not None]) for column in columns.values()]
    assert max(spreads) > 0.01, "the test's weights tell captions apart"


def test_neighbours_do_not_matter(folder: Path) -> None:
    scorer = TextClassifier("tox", settings_of(folder, preset="detoxify"))
    texts: list[str | None] = ["a " * (i % 37) + f"picture of thing {i}" for i in range(30)]
    together = scorer.score(shard_of(texts))["insult"].to_pylist()
    assert scorer.score(shard_of(texts))["insult"].to_pylist() == together
    backwards = scorer.score(shard_of(texts[::-1]))["insult"].to_pylist()[::-1]
    assert backwards == pytest.approx(together, abs=1e-6)
    for i in (0, 7, 29):
        assert scorer.score(shard_of([texts[i]]))["insult"].to_pylist() == pytest.approx(
            [together[i]], abs=1e-6
        )


def test_no_caption_at_all(folder: Path) -> None:
    scorer = TextClassifier("tox", settings_of(folder, preset="detoxify"))
    assert scorer.score(shard_of([None, " "]))["threat"].to_pylist() == [None, None]
    assert scorer.score(shard_of([]))["threat"].to_pylist() == []


def test_labels_and_activation_come_from_the_model(tmp_path: Path) -> None:
    names = {0: "Advertisement", 1: "Other text"}
    exclusive = save_model(tmp_path / "a", 2, id2label=names, label2id={v: k for k, v in names.items()})
    columns = TextClassifier("c", settings_of(exclusive)).score(shard_of(["a bad thing", "good"]))
    assert list(columns) == ["advertisement", "other_text"]
    assert sum(column[0].as_py() for column in columns.values()) == pytest.approx(1, abs=1e-6)
    several = save_model(tmp_path / "b", 3, problem_type="multi_label_classification")
    columns = TextClassifier("c", settings_of(several, keep=("label_2",))).score(shard_of(["a bad thing"]))
    assert list(columns) == ["label_2"]
    assert columns["label_2"][0].as_py() == pytest.approx(plain_scores(several, "a bad thing")[2], abs=1e-5)
    forced = TextClassifier("c", settings_of(several, activation="softmax")).score(shard_of(["good"]))
    assert sum(column[0].as_py() for column in forced.values()) == pytest.approx(1, abs=1e-6)


def test_captions_are_cut_where_the_settings_or_the_model_say(folder: Path) -> None:
    text = "a bad thing of 5 good picture"
    cut = TextClassifier("c", settings_of(folder, preset="detoxify", max_length=5)).score(shard_of([text]))
    assert cut["toxicity"][0].as_py() == pytest.approx(plain_scores(folder, text, 5)[0], abs=1e-5)
    assert load(settings_of(folder), TextClassifier("c", settings_of(folder)).files, "p").lengths == (
        16,
        32,
        40,
    )


def test_a_model_without_a_classifier_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path)
    config = transformers.BertConfig.from_pretrained(tmp_path)
    transformers.BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no sequence classifier"):
        TextClassifier("c", settings_of(tmp_path)).score(shard_of(["a"]))


def test_mistakes_are_named(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no folder"):
        TextClassifier("c", settings_of(tmp_path / "none"))
    with pytest.raises(UserError, match=r"no config\.json or no weights"):
        TextClassifier("c", settings_of(tmp_path))
    small = save_model(tmp_path / "small", 2)
    with pytest.raises(UserError, match="7 labels, but the model has 2 outputs"):
        TextClassifier("c", settings_of(small, preset="detoxify")).score(shard_of(["a"]))
    (small / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match="cannot be loaded"):
        TextClassifier("c", settings_of(small)).score(shard_of(["a"]))
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "transformers" else found(name, *rest),
    )
    with pytest.raises(UserError, match=r"pip install 'curate\[transformers\]'"):
        TextClassifier("c", settings_of(folder))


def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("Name or service not known\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(
        UserError, match=r"no folder 'some/model', and the hub has none for it \(Name or"
    ) as caught:
        TextClassifier("c", settings_of(Path("some/model")))
    assert "\n" not in str(caught.value)


def test_a_hub_id_is_fetched_in_safe_form_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None, bool]] = []

    def fetched(repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repository, revision, "pytorch_model*.bin" in allow_patterns))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    scorer = TextClassifier("c", settings_of(Path("some/model"), revision="abc"))
    assert asked == [("some/model", "abc", False)]
    assert scorer.facts["checkpoint"] == TextClassifier("c", settings_of(folder)).facts["checkpoint"]


def test_the_stage_scores_and_new_weights_redo_it(tmp_path: Path, folder: Path) -> None:
    workspace = Workspace(str(tmp_path / "w"))
    dataset(workspace, samples(9), shards=1)
    scorer = settings_of(folder, preset="detoxify", keep=("toxicity",))
    stage = ScoreStage("tox", scorer, EmbedSettings())
    run_stage(workspace, stage)
    rows = workspace.read_table(Family.scores("tox").path("00000")).to_pylist()
    for row, (uid, text, _) in zip(rows, samples(9), strict=True):
        assert row["uid"] == uid
        assert row["tox_toxicity"] == pytest.approx(plain_scores(folder, text)[0], abs=1e-5)
    other = save_model(tmp_path / "other", seed=0)
    assert (
        make_plan(
            ScoreStage("tox", settings_of(other, preset="detoxify", keep=("toxicity",)), EmbedSettings()),
            workspace,
            RecordStore(workspace),
        ).jobs
        == []
    )
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    changed = ScoreStage("tox", settings_of(other, preset="detoxify", keep=("toxicity",)), EmbedSettings())
    assert len(make_plan(changed, workspace, RecordStore(workspace)).jobs) == 1

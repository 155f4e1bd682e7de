from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP

from curate.clip.model import load
from curate.clip.text import LENGTHS, by_length, causal_text
from curate.errors import UserError
from tests.unit.embed.clip_shards import save_clip, settings_of

CAPTIONS = ["", "a cat", "two dogs in the snow", "word " * 40, "a photograph of the sea at night", "x"]
VISION = CLIPVisionCfg(image_size=32, layers=1, width=32, head_width=32, patch_size=16)


def tokens_of(texts: list[str], context: int = 16) -> torch.Tensor:
    import open_clip

    return open_clip.SimpleTokenizer(context_length=context)(texts)


def text_config(**changes: object) -> CLIPTextCfg:
    return CLIPTextCfg(**{"context_length": 16, "width": 32, "heads": 2, "layers": 2, **changes})


@pytest.mark.parametrize("family", [CLIP, CustomTextCLIP])
def test_short_batches_give_what_whole_contexts_give(family: type) -> None:
    torch.manual_seed(0)
    model = family(32, VISION, text_config()).eval()
    short = causal_text(model, tokens_of)
    assert short is not None
    tokens = tokens_of(CAPTIONS)
    with torch.inference_mode():
        expected = model.encode_text(tokens).numpy()
        for length, rows in by_length(short.ends(tokens).numpy(), 16):
            assert np.allclose(short(tokens[rows, :length]).numpy(), expected[rows], atol=1e-6)


@pytest.mark.parametrize(
    "changes", [{"no_causal_mask": True}, {"pool_type": "last"}, {"embed_cls": True, "pool_type": "none"}]
)
def test_towers_that_look_at_everything_are_run_at_full_length(changes: dict[str, object]) -> None:
    model = CustomTextCLIP(32, VISION, text_config(**changes)).eval()
    assert causal_text(model, tokens_of) is None


def test_a_tower_that_only_looks_causal_is_found_out(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model = CLIP(32, VISION, text_config()).eval()
    model.attn_mask = torch.zeros_like(model.attn_mask)
    with caplog.at_level(logging.WARNING):
        assert causal_text(model, tokens_of) is None
    assert "not as causal" in caplog.text


@given(st.lists(st.integers(0, 76), min_size=1, max_size=60))
def test_groups_hold_every_row_once_at_the_least_length_that_fits(ends: list[int]) -> None:
    groups = by_length(np.array(ends, np.int64), 77)
    assert sorted(row for _, rows in groups for row in rows.tolist()) == list(range(len(ends)))
    known = [n for n in (*LENGTHS, 77) if n <= 77]
    for length, rows in groups:
        for row in rows.tolist():
            assert length == min(n for n in known if n > ends[row])


def multilingual(folder: Path, dim: int) -> Path:
    """A sentence-transformers model with random weights: an embedding table, a mean, a projection."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense, Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "ein", "roter", "hund", "a", "red", "dog"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    inner = folder / "bert"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(
        inner
    )
    config = BertConfig(vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=32)  # fmt: skip
    BertModel(config).save_pretrained(inner)
    transformer = Transformer(str(inner))
    model = SentenceTransformer(modules=[transformer, Pooling(16), Dense(16, dim)], device="cpu")
    model.save(str(folder / "st"))
    return folder / "st"


def test_texts_through_a_sentence_transformers_model(tmp_path: Path, tiny: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = multilingual(tmp_path, dim=32)
    clip = load(settings_of(tiny, text_model=str(folder)))
    texts = ["ein roter hund", "a red dog", "dog"]
    expected = SentenceTransformer(str(folder), device="cpu").encode(texts, normalize_embeddings=True)
    assert np.allclose(clip.encode_captions(texts), expected, atol=1e-5)
    assert clip.facts["text_model"] == str(folder)
    assert clip.facts["text_weights"] != clip.facts["weights"]


def test_a_text_model_of_another_space_is_refused(tmp_path: Path, tiny: Path) -> None:
    folder = multilingual(tmp_path, dim=24)
    clip = load(settings_of(tiny, text_model=str(folder)))
    with pytest.raises(UserError, match=r"24 dimensions; the images of .* have 32"):
        clip.encode_captions(["a red dog"])


def test_a_text_model_that_is_not_there(tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(UserError, match=r"text_model '.*nothing'"):
        load(settings_of(tiny, text_model=str(tmp_path / "nothing")))


def test_a_multilingual_tower_of_open_clip(tmp_path: Path) -> None:
    """The shape of open_clip's XLM-R models: a transformers text tower with a tokenizer of its own."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

    words = ["<s>", "<pad>", "</s>", "<unk>", "ein", "roter", "hund", "собака"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    inner = tmp_path / "xlmr"
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>",
                                   bos_token="<s>", eos_token="</s>")  # fmt: skip
    made.save_pretrained(inner)
    torch.manual_seed(0)
    config = XLMRobertaConfig(vocab_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                              intermediate_size=32, max_position_embeddings=40, pad_token_id=1)  # fmt: skip
    XLMRobertaModel(config).save_pretrained(inner)
    text = {"hf_model_name": str(inner), "hf_tokenizer_name": str(inner), "hf_pooler_type": "mean_pooler",
            "hf_proj_type": "mlp", "context_length": 12}  # fmt: skip
    folder = save_clip(tmp_path / "clip", family=CustomTextCLIP, text_cfg=text)
    made.save_pretrained(folder)
    clip = load(settings_of(folder))
    assert clip.short_text is None
    vectors = clip.encode_texts(["ein roter hund", "собака", "ein roter hund"])
    assert vectors.shape == (3, 32)
    assert np.allclose(vectors[0], vectors[2], atol=1e-6)
    assert not np.allclose(vectors[0], vectors[1], atol=1e-3)

"""Cost of the detectors of docs/detectors.md on this machine, one thread.

    python scripts/bench/detectors.py --images FOLDER --text
    python scripts/bench/detectors.py --captions TABLE.parquet --column TEXT --lists FOLDER

Images are decoded once before; every figure is CPU time, the median of several passes. Models have random
weights: their cost does not depend on them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from curate.clip.images import decode
from curate.config.scorers.image_classifier import ImageClassifierScorer
from curate.config.scorers.image_stats import ImageStatsScorer
from curate.config.scorers.perceptual import PerceptualScorer
from curate.config.scorers.words import WordsScorer
from curate.score.contract import PixelScorer, Shard
from curate.score.kinds.image_classifier import ImageClassifier, _watermark_model
from curate.score.kinds.image_stats import ImageStats
from curate.score.kinds.perceptual import Perceptual
from curate.score.kinds.words import Words


def seconds(work: Callable[[], object], times: int = 5) -> float:
    work()
    taken = []
    for _ in range(times):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def shard(table: pa.Table) -> Shard:
    return Shard("0", table, {}, {}, lambda alias, texts: (np.empty((0, 0), np.float32), 1.0))


def images(folder: Path) -> None:
    data = [p.read_bytes() for p in sorted(folder.iterdir()) if p.suffix in (".jpg", ".png")]
    decoded = [decode(d) for d in data]
    megapixels = sum(i.width * i.height for i in decoded) / len(decoded) / 1e6
    print(f"{len(data)} images of {megapixels:.2f} megapixels on average, ms per image:")
    print(f"  decode             {1e3 * seconds(lambda: [decode(d) for d in data]) / len(data):8.2f}")
    with tempfile.TemporaryDirectory() as place:
        file = str(Path(place) / "weights.pt")
        torch.save(_watermark_model().state_dict(), file)
        watermark = ImageClassifierScorer(
            type="image_classifier", preset="laion_watermark", file=file, batch_size=8
        )
        scorers: dict[str, PixelScorer] = {
            "image_stats": ImageStats("s", ImageStatsScorer(type="image_stats")),
            "phash": Perceptual("p", PerceptualScorer(type="perceptual", hashes=("phash",))),
            "dhash": Perceptual("p", PerceptualScorer(type="perceptual", hashes=("dhash",))),
            "pdq": Perceptual("p", PerceptualScorer(type="perceptual", hashes=("pdq",))),
            "laion_watermark": ImageClassifier("w", watermark),
        }
        table = shard(pa.table({"uid": [str(i) for i in range(len(data))]}))
        for name, scorer in scorers.items():

            def work(scorer: PixelScorer = scorer) -> None:
                judge = scorer.start(table)
                for row, image in enumerate(decoded):
                    judge.add(row, image)
                judge.columns()

            print(f"  {name:18s} {1e3 * seconds(work) / len(data):8.2f}")


def captions(table: Path, column: str, lists: str) -> None:
    texts = pq.read_table(table, columns=[column]).column(0)
    given = shard(pa.table({"uid": pa.array([str(i) for i in range(len(texts))]), "text": texts}))
    scorer = Words("w", WordsScorer(type="words", lists=lists))
    rate = len(texts) / seconds(lambda: scorer.score(given))
    print(f"words: {rate:,.0f} captions/s, {len(scorer.files)} lists")


def transformer() -> None:
    """A forward pass of the size of BERT base or XLM-R base, 16 captions of at most 32 tokens."""
    from transformers import BertConfig, BertForSequenceClassification

    model = BertForSequenceClassification(BertConfig(vocab_size=1000, num_labels=16)).eval()
    ids, mask = torch.ones((16, 32), dtype=torch.long), torch.ones((16, 32), dtype=torch.long)
    with torch.inference_mode():
        taken = seconds(lambda: model(input_ids=ids, attention_mask=mask), 3)
    print(f"text_classifier: {1e3 * taken / 16:.1f} ms per caption of at most 32 tokens")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path)
    parser.add_argument("--captions", type=Path)
    parser.add_argument("--column", default="TEXT")
    parser.add_argument("--lists")
    parser.add_argument("--text", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.images:
        images(args.images)
    if args.captions:
        captions(args.captions, args.column, args.lists)
    if args.text:
        transformer()


if __name__ == "__main__":
    main()

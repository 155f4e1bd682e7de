"""``type: negclip``: a CLIP score that knows what is generic.

negCLIPLoss (Wang et al., arXiv 2405.19547, section 3.1).

For unit vectors f (image) and g (text), temperature t and a random batch B of the pool that holds i:

    s_i = f_i·g_i - t/2 · log Σ_{j∈B} exp(f_i·g_j / t) - t/2 · log Σ_{j∈B} exp(f_j·g_i / t),

averaged over K batches (paper: |B| = 32,768, K = 10, t = 0.01 for OpenAI's models). The authors cut
each of their files into batches after a random permutation. Here batches are drawn from one sample of
the pool, the rows with the smallest seeded hash of their uid, so that a score depends neither on the
size of a shard nor on who else is in it. For each row the batch is the same as in the paper: itself
and others drawn uniformly; what is approximate is that K batches share the rows of the sample.

Where a batch has not |B| rows (a row joins a full batch it was not drawn for; the pool is small) its
sum is scaled to |B|, i.e. the mean over the batch is what counts. The authors' short last batch is
not corrected and gives higher scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from curate.config.scorers.negclip import NegClipScorer
from curate.errors import UserError
from curate.score.contract import Columns, ColumnScorer, OpenShard, Shard
from curate.score.devices import device_of, one_thread
from curate.score.vectors.compute import COLS, floats, row_blocks, to_tensor
from curate.score.vectors.sample import draw, find, uid_words

LEAST_TEMPERATURE = 0.003
"""Two cosines differ by 2 at most; float64 holds exp(-2 / 0.003)."""
LOST_BELOW = 1e-25
"""A sum of float32 exponents as small as this may lack terms below 1e-38."""

Doubles = npt.NDArray[np.float64]


class NegClip(ColumnScorer[NegClipScorer]):
    """negCLIPLoss and its two normalisers."""

    outputs = pa.schema({"score": pa.float32(), "image_norm": pa.float32(), "text_norm": pa.float32()})
    learns = True
    gpu = True

    def __init__(self, name: str, settings: NegClipScorer) -> None:
        super().__init__(name, settings)
        self.vectors = ((settings.model, "image"), (settings.model, "text"))

    def learn(self, shards: Sequence[str], open_shard: OpenShard) -> Mapping[str, npt.NDArray[Any]]:
        """The sample (``uid``, ``image``, ``text``) and which of its rows are in which batch (``member``)."""
        asked = self.settings
        size = asked.sample or 2 * asked.batch_size
        sample = draw(shards, open_shard, self.vectors, size, asked.seed)
        if not len(sample.uids):
            raise UserError(f"{self.place}: no sample has both embeddings of '{asked.model}'")
        member = batches(len(sample.uids), asked.batch_size, asked.draws, asked.seed)
        return {"uid": sample.uids, "image": sample.vectors[0], "text": sample.vectors[1], "member": member}

    def score(self, shard: Shard) -> Columns:
        """Against the batches that were learned."""
        alias = self.settings.model
        learned = shard.learned
        temperature = self.settings.temperature or self._of_model(alias, shard.facts[alias])
        device = device_of(self.settings.device, self.place)
        rows = find(uid_words(shard.samples["uid"]), learned["uid"])
        image, text = shard.vectors[alias, "image"], shard.vectors[alias, "text"]
        pool = Pool(learned["image"], learned["text"], learned["member"], self.settings.batch_size)
        with one_thread():
            found = negclip(image, text, rows, pool, temperature, device)
        missing = np.isnan(found.score)
        return {
            "score": floats(found.score, missing),
            "image_norm": floats(found.image_norm, missing),
            "text_norm": floats(found.text_norm, missing),
        }

    def _of_model(self, alias: str, facts: Mapping[str, Any]) -> float:
        scale = facts.get("logit_scale")
        if not scale or float(scale) * LEAST_TEMPERATURE > 1:
            raise UserError(
                f"{self.place}.temperature: the logit scale of '{alias}' is {scale or 'not known'}; "
                "give a temperature (OpenAI's models: 0.01)"
            )
        return 1 / float(scale)


@dataclass(frozen=True)
class Pool:
    """What stands for the pool.

    Attributes:
        image: float16 (m, dim).
        text: float16 (m, dim).
        member: bool (m, draws), which rows are in which batch.
        batch_size: what sums are scaled to.
    """

    image: npt.NDArray[np.float16]
    text: npt.NDArray[np.float16]
    member: npt.NDArray[np.bool_]
    batch_size: int


@dataclass(frozen=True)
class Scored:
    """Float64 (n,) each, NaN for rows without both embeddings. ``score`` is the similarity less the
    mean of the two normalisers, which are t · log Σ exp(…/t) averaged over batches."""

    score: Doubles
    image_norm: Doubles
    text_norm: Doubles


def batches(rows: int, size: int, draws: int, seed: int) -> npt.NDArray[np.bool_]:
    """Random batches of ``size`` out of ``rows``: bool (rows, draws); all rows once when they are no more."""
    if rows <= size:
        return np.ones((rows, 1), bool)
    member = np.zeros((rows, draws), bool)
    for k in range(draws):
        member[np.random.default_rng([seed, k]).permutation(rows)[:size], k] = True
    return member


def negclip(
    image: npt.NDArray[np.float16],
    text: npt.NDArray[np.float16],
    rows: npt.NDArray[np.int64],
    pool: Pool,
    temperature: float,
    device: torch.device,
) -> Scored:
    """Score stored unit vectors (n, dim) and (n, dim).

    Memory: a tile of 128 MiB and its exponents, and the pool's float16 vectors on the device.

    Args:
        image: images' vectors, NaN where there is none.
        text: texts' vectors, likewise.
        rows: which row of the pool each of them is, -1 for none; a row counts once in its own batch.
        pool: see ``Pool``.
        temperature: t.
        device: where to compute.
    """
    out = Scored(*(np.full(len(image), np.nan) for _ in range(3)))
    others = [torch.from_numpy(np.ascontiguousarray(v)).to(device) for v in (pool.text, pool.image)]
    member = torch.from_numpy(pool.member.astype(np.float32)).to(device)
    own = torch.from_numpy(rows).to(device)
    for part, f, has_image in row_blocks(image, device):
        g, has_text = to_tensor(text, part, device)
        similarity = (f.double() * g.double()).sum(dim=1)
        norms = [
            log_sum(x, other, member, own[part], similarity, temperature, pool.batch_size)
            for x, other in ((f, others[0]), (g, others[1]))
        ]
        score = similarity - (norms[0] + norms[1]) / 2
        missing = ~(has_image & has_text)
        for array, values in zip((out.score, out.image_norm, out.text_norm), (score, *norms), strict=True):
            array[part] = values.masked_fill(missing, torch.nan).cpu().numpy()
    return out


def log_sum(
    x: torch.Tensor,
    others: torch.Tensor,
    member: torch.Tensor,
    own: torch.Tensor,
    similarity: torch.Tensor,
    temperature: float,
    batch_size: int,
) -> torch.Tensor:
    """t · log Σ_{j∈B} exp(x_i·y_j / t), averaged over the batches B, each with row i in it.

    Every inner product is computed once, whatever the number of batches: the sums over all of them
    are one product of the tile's exponents with the membership matrix. Exponents are taken relative
    to the largest so far, so that nothing overflows (exp(0.9 / 0.01) does in float32). That largest
    one may be in other batches only; rows for which it leaves too little of a batch for float32 are
    computed again in float64.

    Args:
        x: float32 (n, dim), or float64.
        others: float16 (m, dim), y of the pool.
        member: float32 (m, k), 1 for rows of a batch.
        own: int64 (n,), the row of ``others`` that is i itself, or -1.
        similarity: float64 (n,), x_i·y_i.
        temperature: t.
        batch_size: sums are scaled to so many rows.
    """
    largest = similarity / temperature
    total = torch.ones((len(x), member.shape[1]), dtype=torch.float64, device=x.device)
    scaled = x / temperature
    for first, y in _blocks(others):
        tile = scaled @ y.to(x.dtype).T
        inside = torch.nonzero((own >= first) & (own < first + len(y)))[:, 0]
        tile[inside, own[inside] - first] = -torch.inf
        above = torch.maximum(largest, tile.amax(dim=1).double())
        total *= (largest - above).exp()[:, None]
        tile -= above[:, None].to(x.dtype)
        total += tile.exp_() @ member[first : first + len(y)].to(x.dtype)
        largest = above
    rows = member.sum(dim=0).double() + 1
    in_batch = torch.where((own >= 0)[:, None], member[own.clamp(min=0)], 0.0)
    log = largest[:, None] + total.log() - (rows - in_batch).log() + np.log(batch_size)
    out: torch.Tensor = temperature * log.mean(dim=1)
    lost = (total.amin(dim=1) < LOST_BELOW).nonzero()[:, 0]
    if x.dtype == torch.float32 and len(lost):
        again = (own[lost], similarity[lost], temperature, batch_size)
        out[lost] = log_sum(x[lost].double(), others, member, *again)
    return out


def _blocks(others: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    for first in range(0, len(others), COLS):
        yield first, others[first : first + COLS]

"""Samples with their pictures for a training loop, read where they lie: no new shards."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch.utils.data import IterableDataset, get_worker_info

from curate.dataset import layout
from curate.dataset.tars import images_of

if TYPE_CHECKING:
    from curate.api.samples import Samples


class TorchSamples(IterableDataset[dict[str, Any]]):
    """Dictionaries of the columns and ``image``, a ``PIL.Image`` in the mode in which it is stored.

    Every worker of a ``DataLoader`` reads shards of its own. Shards come in uid order, which is a shuffle of
    hosts; shuffle further with a buffer. A sample whose picture is not in its tar is left out.

    Args:
        samples: which, and with which columns.
        repeat: give a sample as often as it is kept.
    """

    def __init__(self, samples: Samples, repeat: bool = True) -> None:
        self.samples, self.repeat = samples, repeat

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        if worker is None:
            return self.rows()
        return TorchSamples(self.samples.part(worker.id, worker.num_workers), self.repeat).rows()

    def rows(self) -> Iterator[dict[str, Any]]:
        """All of them, in this process."""
        from PIL import Image

        workspace = self.samples.workspace
        for shard, table in self.samples.by_shard():
            rows = {row["uid"]: row for row in table.to_pylist()}
            path = layout.image_tar(shard)
            with workspace.open(path) as stream:
                for uid, _, data in images_of(stream, list(rows), f"{workspace.url}/{path}"):
                    picture = Image.open(io.BytesIO(data))
                    picture.load()
                    for _ in range(rows[uid].get("repeats", 1) if self.repeat else 1):
                        yield {**rows[uid], "image": picture}

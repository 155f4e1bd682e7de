"""A selection in a training job: filter webdataset samples as they are read, without new shards.

::

    import curate, webdataset as wds

    selection = curate.load_selection("work", "top30")
    samples = wds.WebDataset("work/images/{00000..00041}.tar").compose(selection.repeat)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from curate.dataset import external, layout
from curate.dataset.selections import SUBSET
from curate.dataset.uid import SUBSET_DTYPE
from curate.errors import UserError

Sample = Mapping[str, Any]


class LoadedSelection:
    """Uids and how often each is kept. Memory: 16 bytes for each; a look-up takes microseconds.

    Args:
        uids: DataComp's subset array, ``u8,u8`` (n,), a uid as often as it repeats.
        uid: sample → its uid; default ``uid_of_sample``.
    """

    def __init__(self, uids: npt.NDArray[np.void], uid: Callable[[Sample], str] | None = None) -> None:
        # Big-endian bytes compare as the numbers do, and as the hex digits do.
        names = uids.dtype.names or ("f0", "f1")
        pairs = np.stack([uids[name] for name in names], axis=1).astype(">u8")
        self._sorted = np.sort(pairs.view("S16").ravel()) if len(uids) else np.empty(0, "S16")
        self._uid = uid or uid_of_sample

    def __len__(self) -> int:
        """Samples, each as often as it repeats."""
        return len(self._sorted)

    def count(self, uid: str) -> int:
        """How often a uid is kept; 0 for what is not, or is no uid."""
        try:
            # numpy ends strings at their last byte that is not zero; it does so on both sides.
            value = np.bytes_(bytes.fromhex(uid)) if len(uid) == 32 else None
        except ValueError:
            return 0
        if value is None:
            return 0
        first, last = (np.searchsorted(self._sorted, value, side) for side in ("left", "right"))
        return int(last - first)

    def __contains__(self, uid: object) -> bool:
        """Whether a uid is kept."""
        return isinstance(uid, str) and self.count(uid) > 0

    def __call__(self, sample: Sample) -> bool:
        """Whether a sample is kept: for ``.select(selection)``. Repeats are not looked at."""
        return self._uid(sample) in self

    def repeat(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Each kept sample as often as it is kept: for ``.compose(selection.repeat)``."""
        for sample in samples:
            for _ in range(self.count(self._uid(sample))):
                yield sample


def load_selection(
    path: str, experiment: str | None = None, uid: Callable[[Sample], str] | None = None
) -> LoadedSelection:
    """The selection of an experiment, or any DataComp subset file.

    Args:
        path: a workspace, with ``experiment``; or a ``.npy`` file of ``u8,u8``; both by fsspec.
        experiment: whose selection.
        uid: sample → its uid, when it is neither the key nor in the sample's json.

    Raises:
        UserError: no such file, or not a subset file.
    """
    place = path if experiment is None else f"{path.rstrip('/')}/{layout.selection_file(experiment, SUBSET)}"
    try:
        with external.open_file(place) as stream:
            uids = np.load(stream, allow_pickle=False)
    except FileNotFoundError:
        hint = "" if experiment is None else "; has `curate filter` run?"
        raise UserError(f"load_selection: no file {place}{hint}") from None
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"load_selection: {place} cannot be read as npy: {error}") from None
    if uids.ndim != 1 or [uids.dtype[i] for i in range(len(uids.dtype))] != [SUBSET_DTYPE[0]] * 2:
        raise UserError(f"load_selection: {place}: expected u8,u8 (n,), got {uids.dtype} {uids.shape}")
    return LoadedSelection(uids, uid)


def uid_of_sample(sample: Sample) -> str:
    """The uid of a webdataset sample: ``uid`` in its json (DataComp's shards), or its key (ours)."""
    facts = sample.get("json")
    if isinstance(facts, bytes | str):
        facts = json.loads(facts)
    if isinstance(facts, Mapping) and isinstance(facts.get("uid"), str):
        return str(facts["uid"])
    return str(sample["__key__"]).rpartition("/")[2]

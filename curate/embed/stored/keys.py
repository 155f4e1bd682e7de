"""Which sample a row of somebody else's metadata is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.config.models import ModelSettings
from curate.dataset.uid import SUBSET_DTYPE, halves, uid_of
from curate.errors import UserError

_UID = r"^[0-9a-fA-F]{32}$"
_IN_PATH = re.compile(r"(?:^|/)([0-9a-f]{32})(?:-\d+)?(?:\.[A-Za-z0-9]+)*$")
TEXTS = ("caption", "text")
Kind = Literal["uid", "pair", "path"]


@dataclass(frozen=True)
class Key:
    """The columns that say which sample a row is.

    ``uid``: a column of uids. ``pair``: text and URL, whose md5 is the uid. ``path``: the name of a
    webdataset member that is a uid (as in the shards of this project), with or without a copy number.
    """

    kind: Kind
    columns: tuple[str, ...]


def key_of(names: Sequence[str], settings: ModelSettings, place: str) -> Key:
    """Choose the key among a file's columns: what the settings name, else uid, else pair, else path.

    Args:
        names: of the columns.
        settings: of the model.
        place: the file, for messages.

    Raises:
        UserError: no such column, or nothing that could be a key.
    """
    lower = {name.lower(): name for name in reversed(names)}
    for key in ("uid_column", "url_column", "text_column"):
        named = getattr(settings, key)
        if named and named not in names:
            raise UserError(f"{place}: {key} '{named}' is not a column; there are {', '.join(names)}")
    if settings.uid_column:
        return Key("uid", (settings.uid_column,))
    asked = bool(settings.url_column or settings.text_column)
    if "uid" in lower and not asked:
        return Key("uid", (lower["uid"],))
    url = settings.url_column or lower.get("url")
    text = settings.text_column or next((lower[name] for name in TEXTS if name in lower), None)
    if url and text:
        return Key("pair", (text, url))
    if "image_path" in lower and not asked:
        return Key("path", (lower["image_path"],))
    raise UserError(
        f"{place}: nothing says which samples its rows are; there are {', '.join(names)}. Name a "
        "`uid_column`, or a `url_column` and a `text_column`"
    )


def uids_of(batch: pa.RecordBatch, key: Key) -> tuple[npt.NDArray[np.void], npt.NDArray[np.bool_]]:
    """The uids of n rows as ``u8,u8`` (n,), and which rows have one, bool (n,); the others are zero."""
    columns = [pc.cast(batch.column(name), pa.string()) for name in key.columns]
    if key.kind == "uid":
        values = columns[0]
        valid = pc.match_substring_regex(values, _UID).fill_null(False)
        values = pc.ascii_lower(values.filter(valid))
    else:
        rows = zip(*(column.to_pylist() for column in columns), strict=True)
        found = [_uid(row, key.kind) for row in rows]
        valid = pa.array([uid is not None for uid in found], pa.bool_())
        values = pa.array([uid for uid in found if uid is not None], pa.string())
    known = np.asarray(valid.to_numpy(zero_copy_only=False), np.bool_)
    out = np.zeros(len(known), SUBSET_DTYPE)
    out[known] = halves(values)
    return out, known


def _uid(row: tuple[str | None, ...], kind: Kind) -> str | None:
    if kind == "path":
        match = _IN_PATH.search(row[0] or "")
        return match[1] if match else None
    text, url = row
    return None if text is None or not url else uid_of(text, url)

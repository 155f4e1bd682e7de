"""Which files a source of embeddings has, and which of them belong together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from curate.config.models import ModelSettings
from curate.dataset.listing import file_ref, listed, open_fs
from curate.dataset.workspace import FileRef
from curate.errors import UserError

_NUMBERED = re.compile(r"^(img_emb|text_emb|metadata)_(\d+)\.(npy|parquet)$")


@dataclass(frozen=True)
class Part:
    """A table and the arrays whose rows are its rows.

    Its refs are those of ``curate.dataset.listing``.
    """

    metadata: FileRef
    vectors: Mapping[str, FileRef]
    """Modality → its file."""

    @property
    def files(self) -> tuple[FileRef, ...]:
        """Its files, each once: both arrays of an ``.npz`` are in one."""
        return tuple(dict.fromkeys((self.metadata, *self.vectors.values())))


def find_parts(settings: ModelSettings, place: str) -> list[Part]:
    """All parts of a source, in order of their names, numbers by value (``_2`` before ``_10``).

    Args:
        settings: a model with ``source`` and ``format``.
        place: the config key, for messages.

    Raises:
        UserError: nothing is there, or a file lacks those that go with it.
    """
    files: dict[str, FileRef] = {}
    for pattern in settings.source:
        refs = listed(pattern, settings.storage_options, f"{place}.source", (".npy", ".npz", ".parquet"))
        found = {ref.path: ref for ref in refs}
        if not found:
            raise UserError(f"{place}.source: '{pattern}' has no .npy, .npz or .parquet file")
        files |= found
    if settings.format == "datacomp":
        return _archives(files, settings, place)
    return _folders(files, settings.modalities, place)


def _folders(files: Mapping[str, FileRef], modalities: Sequence[str], place: str) -> list[Part]:
    """clip-retrieval: files of one number under one folder, whatever their own folders are called."""
    kinds = {modality: {"image": "img_emb", "text": "text_emb"}[modality] for modality in modalities}
    groups: dict[tuple[str, int], dict[str, FileRef]] = {}
    for url, ref in files.items():
        folder, _, name = url.rpartition("/")
        match = _NUMBERED.match(name)
        if match is None or (match[1] == "metadata") != (match[3] == "parquet"):
            continue
        group = groups.setdefault((folder.rpartition("/")[0], int(match[2])), {})
        if match[1] in group:
            raise UserError(f"{place}.source: {group[match[1]].path} and {url} are both number {match[2]}")
        group[match[1]] = ref
    parts = []
    for (root, number), group in sorted(groups.items()):
        if group.keys() == {"metadata"}:  # as clip-retrieval puts beside an index
            continue
        for kind in (*kinds.values(), "metadata"):
            if kind not in group:
                have = ", ".join(sorted(ref.path for ref in group.values()))
                raise UserError(
                    f"{place}.source: {root}: number {number} has no {kind} file (there is {have}); give the "
                    "folder that holds img_emb, text_emb and metadata, or `modalities: [image]`"
                )
        parts.append(Part(group["metadata"], {m: group[kind] for m, kind in kinds.items()}))
    if not parts:
        raise UserError(f"{place}.source: no img_emb_<n>.npy among {len(files):,} files; is it `datacomp`?")
    return parts


def _archives(files: Mapping[str, FileRef], settings: ModelSettings, place: str) -> list[Part]:
    """DataComp: an ``.npz`` and the ``.parquet`` of the same name beside it."""
    parts = []
    for url in sorted(url for url in files if url.endswith(".npz")):
        beside = url.removesuffix(".npz") + ".parquet"
        table = files.get(beside)
        if table is None:
            fs, path = open_fs(beside, settings.storage_options)
            if not fs.isfile(path):
                raise UserError(f"{place}.source: {url} has no {beside.rpartition('/')[2]} beside it")
            table = file_ref(fs, fs.info(path))
        parts.append(Part(table, dict.fromkeys(settings.modalities, files[url])))
    if not parts:
        raise UserError(f"{place}.source: no .npz among {len(files):,} files; is it `clip_retrieval`?")
    return parts

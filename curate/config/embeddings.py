"""Settings of embeddings that exist already."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from curate.config.base import Settings, knob


class StoredSource(Settings):
    """Where existing embeddings lie and how they are laid out. Without ``source``: nowhere, compute them."""

    source: tuple[str, ...] = knob(
        (), "Existing embeddings to take instead of computing any: folders, globs or files; local or URLs."
    )
    format: Literal["clip_retrieval", "datacomp"] | None = Field(
        None,
        description="Of `source`: folders of `img_emb`, `text_emb`, `metadata`, or `.npz` beside `.parquet`.",
    )
    arrays: str | None = Field(
        None, description="`datacomp`: `b32` or `l14`, for the arrays `<arrays>_img` and `<arrays>_txt`."
    )
    uid_column: str | None = Field(None, description="Of the source's metadata. Default: `uid`, if any.")
    url_column: str | None = Field(None, description="Where there is no uid. Default: `url`.")
    text_column: str | None = Field(None, description="Where there is no uid. Default: `caption` or `text`.")
    storage_options: dict[str, Any] = knob({}, "fsspec options of `source`, e.g. `{anon: true}`.")

    @field_validator("source", mode="before")
    @classmethod
    def _one_source(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _of_a_source(self) -> StoredSource:
        """What describes existing embeddings goes with ``source``, and all of it that is needed is there."""
        given = [name for name in StoredSource.model_fields if name != "source" and getattr(self, name)]
        if given and not self.source:
            raise ValueError(f"`{given[0]}` describes existing embeddings: it needs `source`")
        if self.source and self.format is None:
            raise ValueError("`source` needs `format`: clip_retrieval or datacomp")
        if self.format == "datacomp" and not self.arrays:
            raise ValueError("`format: datacomp` needs `arrays`, e.g. b32 for b32_img and b32_txt")
        if self.format == "clip_retrieval" and self.arrays:
            raise ValueError("`arrays` goes with `format: datacomp`")
        if self.uid_column and (self.url_column or self.text_column):
            raise ValueError("give `uid_column`, or `url_column` and `text_column`, not both")
        return self

    def __hash__(self) -> int:
        # Models are keys of caches; pydantic's own hash stops at the dictionary of options.
        return hash(self.model_dump_json())

    def facts(self) -> dict[str, Any]:
        """What decides the vectors: of existing ones their layout and the model they are said to be of.

        Which files they lie in is up to the stage's inputs. Vectors that are computed have the facts
        that they had before there were sources.
        """
        own = set(StoredSource.model_fields)
        kept = set(type(self).model_fields) - own
        if self.source:
            kept = own | {"model", "pretrained", "modalities"}
        return {name: value for name, value in super().facts().items() if name in kept}

"""Settings of tables that are filtered as they are."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from curate.config.base import Settings, knob


class TableSettings(Settings):
    """Parquet files whose rows are the samples: metadata as DataComp and LAION publish it.

    Which files there are, and whether one of them changed, is seen at every run; it is no setting.
    """

    paths: tuple[str, ...] = Field(
        min_length=1, description="Parquet files, globs or folders; local, http(s)://, s3://."
    )
    uid_column: str | None = Field(
        None, description="32 hex digits. Default: `uid`; where there is none, md5(text + url)."
    )
    columns: dict[str, str] = Field(
        {}, description="Name → column of the files, where it has another name there: `text: TEXT`."
    )
    storage_options: dict[str, Any] = knob({}, "fsspec options of the paths, e.g. `{anon: true}`.")
    keep_columns: bool | None = knob(
        None,
        "Keep the columns that are read, and what is computed from them, uncompressed in the workspace: the "
        "next experiment reads them there. Default: when the config has several experiments or a grid.",
    )

    @field_validator("paths", mode="before")
    @classmethod
    def _one_path(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("columns")
    @classmethod
    def _no_uid(cls, value: dict[str, str]) -> dict[str, str]:
        if "uid" in value:
            raise ValueError("the uid is named by `uid_column`")
        return value

"""Where numbers come from that were learned elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from curate.config.base import Settings, knob


class Frozen(Settings):
    """Take what the rules learned from this experiment in another workspace. Its URL alone will do."""

    workspace: str = Field(min_length=1, description="fsspec URL of the workspace where it was learned.")
    digest: str | None = Field(
        None,
        description="128-bit BLAKE2b of its learned.json: another one is an error. Default: whatever is "
        "there; it is recorded.",
    )
    storage_options: dict[str, Any] = knob(
        {}, "fsspec options of that workspace. Default: this one's, if both are on the same kind of storage."
    )

    @model_validator(mode="before")
    @classmethod
    def _bare_url(cls, value: Any) -> Any:
        return {"workspace": value} if isinstance(value, str) else value

    def beside(self, workspace: str, options: Mapping[str, Any]) -> Frozen:
        """With the options of the workspace that it is read for, if it has none and the same protocol."""
        if self.storage_options or _protocol(self.workspace) != _protocol(workspace):
            return self
        return self.model_copy(update={"storage_options": dict(options)})


def _protocol(url: str) -> str:
    return url.partition("://")[0] if "://" in url else "file"

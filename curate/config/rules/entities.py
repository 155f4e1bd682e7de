"""Settings of the rule ``entities``: captions with a word of a list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from curate.config.rules.base import Digest, RuleSettings


class EntitiesRule(RuleSettings):
    """Captions with a word of a list; with WordNet, DataComp's text-based filter."""

    kind = "entities"
    implementation = "curate.rules.kinds.entities:Entities"
    file_keys: ClassVar[Mapping[str, str]] = {"entities": "digest", "wordnet": "wordnet_digest"}

    entities: str = Field(
        description="File: a word a line or, with `wordnet`, synset ids such as `n02084071`."
    )
    wordnet: str | None = Field(
        None,
        description="WordNet's `dict` folder (index.noun, noun.exc, …): words stand for their first synset.",
    )
    column: str = Field("text", description="Column or expression with the caption.")
    digest: Digest = None
    wordnet_digest: str | None = Field(None, description="The same for all WordNet files together.")

    def urls_of(self, key: str) -> tuple[str, ...]:
        """Of WordNet, the files of the folder that are read."""
        if key != "wordnet" or self.wordnet is None:
            return super().urls_of(key)
        return tuple(f"{self.wordnet.rstrip('/')}/{name}" for name in WORDNET_FILES)


WORDNET_FILES = tuple(
    name for part in ("noun", "verb", "adj", "adv") for name in (f"index.{part}", f"{part}.exc")
)
"""What is read of a ``dict`` folder."""

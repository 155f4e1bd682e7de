"""Stands for gcld3: the same rule about languages as everywhere here."""

from __future__ import annotations

from types import SimpleNamespace

from made import language


class NNetLanguageIdentifier:
    """Takes the same arguments."""

    def __init__(self, min_num_bytes: int, max_num_bytes: int) -> None:
        pass

    def FindLanguage(self, text: str) -> SimpleNamespace:  # noqa: N802 - as the package has it
        """The language, nothing else."""
        return SimpleNamespace(language=language(text))

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.download.robots import directives, is_disallowed

AGENT = "curate-bot/0.1 (+https://example.org)"
FORBIDDEN = frozenset({"noai", "noimageai", "noindex", "noimageindex"})


@pytest.mark.parametrize(
    ("header", "disallowed"),
    [
        ("noai", True),
        ("NoAI", True),
        ("all", False),
        ("", False),
        ("nofollow", False),
        ("none", True),
        ("nofollow, noimageai", True),
        ("noindex, unavailable_after: 25 Jun 2030 15:00:00 PST", True),
        ("unavailable_after: 25 Jun 2030 15:00:00 PST, noindex", True),
        ("unavailable_after: Friday, 25-Jun-30 15:00:00 UTC", False),
        ("max-snippet: 50, max-image-preview: large", False),
        ("max-snippet:50, noai", True),
        ("otherbot: noai", False),
        ("otherbot: noindex, noai", False),
        ("otherbot: noai, curate-bot: noai", True),
        ("otherbot: noai, curate-bot: nofollow", False),
        ("curate-bot: unavailable_after: 25 Jun 2030 15:00:00 PST, noai", True),
        ("CURATE-BOT: noai", True),
        ("*: noai", True),
        ("nofollow, otherbot: noai", False),
        ("noai, otherbot: nofollow", True),
        ("noaix", False),
        (",,:,::,", False),
    ],
)
def test_header(header: str, disallowed: bool) -> None:
    assert is_disallowed([header], AGENT, FORBIDDEN) is disallowed


def test_lines_are_apart() -> None:
    assert is_disallowed(["otherbot: nofollow", "noai"], AGENT, FORBIDDEN)
    assert not is_disallowed([], AGENT, FORBIDDEN)


def test_only_what_is_asked_for() -> None:
    assert not is_disallowed(["noindex"], AGENT, {"noai"})
    assert is_disallowed(["none"], AGENT, {"nofollow"})


@given(st.text(max_size=60))
def test_any_text_is_parsed(header: str) -> None:
    assert all(word == word.strip() and word for word in directives(header, AGENT))


@given(
    st.lists(st.sampled_from(["noai", "nofollow", "noarchive", "noindex"]), min_size=1, max_size=5),
    st.sampled_from(["", "otherbot: ", "curate-bot: ", "*: "]),
    st.sampled_from([",", ", ", " ,"]),
)
def test_scope_holds_for_the_rest(words: list[str], scope: str, comma: str) -> None:
    found = directives(scope + comma.join(words), AGENT)
    assert found == (set() if scope == "otherbot: " else set(words))

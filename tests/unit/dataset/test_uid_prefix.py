"""A sample is named by as many digits as no other uid begins with."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.dataset.uid import complete_uid, shard_of
from curate.errors import UserError

DIGITS = st.text("0123456789abcdef", min_size=32, max_size=32)
CLOSE = st.builds(
    lambda head, tail: head + tail[len(head) :], st.sampled_from(["", "0", "ff", "5f1"]), DIGITS
)


@given(st.sets(CLOSE, min_size=1, max_size=12), st.integers(1, 40), st.integers(1, 32), st.data())
def test_as_by_looking_at_all(uids: set[str], shards: int, length: int, data: st.DataObject) -> None:
    prefix = data.draw(st.sampled_from(sorted(uids)) | DIGITS)[:length]
    held = {number: sorted(u for u in uids if shard_of(u, shards) == number) for number in range(shards)}
    asked: list[int] = []

    def uids_of(number: int) -> pa.Array | None:
        asked.append(number)
        return pa.array(held[number], pa.string()) if held[number] else None

    begin_so = sorted(uid for uid in uids if uid.startswith(prefix))
    if length == 32:
        assert complete_uid(prefix, shards, uids_of, "x") == prefix
        assert not asked
    elif len(begin_so) == 1:
        assert complete_uid(prefix, shards, uids_of, "x") == begin_so[0]
    else:
        why = "no uid begins with" if not begin_so else "several uids begin with"
        with pytest.raises(UserError, match=rf"^x: {why} '{prefix}'"):
            complete_uid(prefix, shards, uids_of, "x")
    assert len(asked) <= shards / 16**length + 2


@pytest.mark.parametrize("text", ["", "g", "ABC", "0" * 33, "5f1 ", "5f1\n", "*"])
def test_no_digits(text: str) -> None:
    with pytest.raises(UserError, match="not a uid"):
        complete_uid(text, 3, lambda _: pa.array(["0" * 32]), "x")

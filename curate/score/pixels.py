"""One pass over the images of a shard for all scorers of pixels."""

from __future__ import annotations

from collections.abc import Sequence

from curate.clip.images import ImageError, decode
from curate.dataset import layout
from curate.dataset.tars import members
from curate.dataset.workspace import Workspace
from curate.score.contract import ImageScores


def show_images(workspace: Workspace, shard: str, uids: Sequence[str], scores: Sequence[ImageScores]) -> None:
    """Decode every sample's image once and show it to each scorer.

    What does not decode, is not there, or comes a second time is not shown.
    """
    rows = {uid: row for row, uid in enumerate(uids)}
    with workspace.open(layout.image_tar(shard)) as stream:
        for key, data in members(stream):
            row = rows.pop(key, None)
            if row is None:
                continue
            try:
                image = decode(data)
            except ImageError:
                continue
            for one in scores:
                one.add(row, image)

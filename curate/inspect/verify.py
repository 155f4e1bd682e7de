"""Is what was committed still there, and still what it was? Records against files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from curate.dataset.records import RecordStore
from curate.dataset.workspace import FileRef, Workspace, digest_of
from curate.errors import DataError
from curate.inspect.status import need_workspace
from curate.verbs import stage_order, verb_of

READERS = 4
"""Files that are read at once; each in blocks of 1 MiB."""


@dataclass(frozen=True)
class Damage:
    """A committed file that is not what its record says.

    Attributes:
        what: ``gone``, ``another size``, ``other bytes``.
    """

    stage: str
    path: str
    what: str

    @property
    def fix(self) -> str:
        """What a user can do."""
        again = f"run `curate {verb_of(self.stage)}` again"
        return again if self.what != "other bytes" else f"remove it, and {again}"


@dataclass
class Verified:
    """The account of a check.

    Attributes:
        files, size: that records name; bytes.
        damages: in order of stages and paths; also of records that cannot be read.
    """

    files: int = 0
    size: int = 0
    damages: list[Damage] = field(default_factory=list)


def verify(
    workspace: Workspace,
    deep: bool = False,
    only: Sequence[str] = (),
    tell: Callable[[int, int], None] = lambda files, size: None,
) -> Verified:
    """Compare every committed file with its record: that it is there, its size, and its bytes if asked.

    Memory: the listing of one folder, and the refs of one stage (about 300 bytes a file).

    Args:
        deep: read all files and compare their digests; about a gigabyte a second for each reader.
        only: verbs whose files are checked; all by default.
        tell: is called with the files and bytes that are done.

    Raises:
        UserError: the folder holds no workspace.
        DataError: a record cannot be read, so that nothing can be said of its stage.
    """
    need_workspace(workspace)
    records = RecordStore(workspace)
    found = Verified()
    for stage in sorted(records.stages(), key=stage_order):
        if only and verb_of(stage) not in only:
            continue
        refs = sorted(records.outputs(stage).values(), key=lambda ref: ref.path)
        for ref, what in _checked(workspace, refs, deep):
            found.files += 1
            found.size += ref.size
            if what:
                found.damages.append(Damage(stage, ref.path, what))
            tell(found.files, found.size)
    return found


def _checked(workspace: Workspace, refs: Iterable[FileRef], deep: bool) -> Iterator[tuple[FileRef, str]]:
    """Each file with what is wrong with it, or nothing."""
    shallow = _shallow(workspace, refs)
    if not deep:
        yield from shallow
        return
    with ThreadPoolExecutor(READERS, thread_name_prefix="verify") as readers:
        yield from readers.map(lambda pair: (pair[0], pair[1] or _bytes(workspace, pair[0])), shallow)


def _shallow(workspace: Workspace, refs: Iterable[FileRef]) -> Iterator[tuple[FileRef, str]]:
    folder, sizes = "\0", dict[str, int]()
    for ref in refs:
        its = ref.path.rpartition("/")[0]
        if its != folder:
            folder, sizes = its, workspace.sizes(its)
        size = sizes.get(ref.path)
        yield ref, "gone" if size is None else "" if size == ref.size else "another size"


def _bytes(workspace: Workspace, ref: FileRef) -> str:
    try:
        with workspace.open(ref.path) as stream:
            return "" if digest_of(stream) == ref.digest else "other bytes"
    except DataError:
        return "gone"

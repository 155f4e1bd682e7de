#!/usr/bin/env python3
"""Seconds and memory of DataComp's filters over a pool of metadata: curate, and DataComp's own code.

Makes metadata of the shape of DataComp's pools (captions of about nine words, sizes, two CLIP similarities)
in two forms with the same rows: a workspace as `curate` leaves it after ingest and score with
`download: null`, and parquet files as DataComp publishes them. Every filter then runs as `curate filter`
would run it, in a process of its own: on the workspace, cold, when the files of whole columns are not there
yet, and warm; on the published files as they are (`filter.tables`), where words are counted and sizes
compared on the way; and there again once an experiment has kept the columns (`keep_columns`). The peer,
DataComp's functions, runs in an environment of its own on two workers, which it starts as it does: it imports
torch, and so does each of them. What both keep is compared before a time counts. Languages are a column of
the workspace, and a rule that costs next to nothing on the published files and for the peer: detecting them
is not what is measured.

    python scripts/bench/filter.py --datacomp ../datacomp               # 12.8 million rows: DataComp small
    python scripts/bench/filter.py --datacomp ../datacomp --rows 1000000
    python scripts/bench/filter.py --scale 3200000                      # two sizes, without the peer

Seconds are those of the whole process, start-up included, where nothing else is said; `inside` is without,
and `cpu` is what it and its workers had of the cores, which other work on the machine hardly changes.
Memory is the largest resident set, with the pages of mapped files; for the peer the sum over its processes.
"Cold" is about curate's files, not the system's page cache. The floor is one pass over the column that a
filter ranks by, as it lies in its file. With --peer-rows the peer runs on a smaller pool of its own, where
results are compared, and its seconds without start-up are scaled by the rows. Needs about half a kilobyte of
disk a row. Linux only (reads /proc). The last line is one JSON object; without a peer it is never `ok`.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from curate.dataset import layout
from curate.dataset.family import CANDIDATES, Family
from curate.dataset.records import RecordStore
from curate.dataset.uid import SUBSET_DTYPE, from_halves, halves
from curate.dataset.workspace import Workspace
from curate.engine.engine import run_unit
from curate.engine.plan import make_plan
from curate.engine.stage import Outcome, Stage, Unit
from curate.samples.geometry import image_facts

ROOT = Path(__file__).resolve().parents[2]
SHARD, PUBLISHED = 10_000, 50_000
"""Rows of a shard of the workspace, and of a published file."""
BANK = 65_536
WORKERS = 2
TORCH = "torch==1.13.1"
"""`baselines.py` imports it, and so does every worker; DataComp's own is 1.13.0."""
BAR_SECONDS, BAR_RATIO, BAR_MEMORY = 3.0, 10.0, 2.0
BAR_PUBLISHED = {"basic": (8.0, 3.0)}
"""Seconds and ratio on the published files; of filters that only compare scores 5 s and 5 times."""
ENGLISH = "(7 * length(text) + unicode(text)) % 16 < 9"
"""The language that the peer is given, in SQL."""
B32, L14 = "clip_b32_similarity_score", "clip_l14_similarity_score"
HEADLINE = "clip_l14_30"
PRESETS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "clip_l14_30": (
        {"rules": {"clip": {"top": L14, "fraction": 0.3}}},
        {"name": "clip_score", "arch": "l14", "fraction": 0.3},
    ),
    "clip_b32_30": (
        {"rules": {"clip": {"top": B32, "fraction": 0.3}}},
        {"name": "clip_score", "arch": "b32", "fraction": 0.3},
    ),
    "clip_l14_threshold": (
        {"rules": {"clip": f"{L14} >= 0.28"}},
        {"name": "clip_score", "arch": "l14", "threshold": 0.28},
    ),
    "basic": (
        {
            "rules": {
                "language": "text_lang = 'en'",
                "words": "text_words > 2 AND text_length > 5",
                "size": "image_min_side >= 200 AND image_aspect <= 3",
            }
        },
        {"name": "basic_filter"},
    ),
    "laion2b": ({"rules": {"language": "text_lang = 'en'", "clip": f"{B32} >= 0.28"}}, {"name": "laion2b"}),
}
"""Name → experiment, and what DataComp's `baselines.py` is told."""
WORDS = (
    "a the of with and red blue old new photo woman man house vintage black white wooden table kitchen "
    "wedding dress shoes car engine garden flower sunset beach mountain river portrait design logo poster "
    "illustration vector handmade leather bag set free shipping size large small 2019 inch stock image view "
    "city street night für der "
)


# ---- the rows ----------------------------------------------------------------------------------------------


@functools.cache
def bank() -> pa.Table:
    """Captions with what the scorer `text` says of them; the language by the rule that the peer is given."""
    sys.path.insert(0, str(ROOT / "tests" / "golden" / "datacomp"))
    from made import language

    rng, words = np.random.default_rng(0), np.array(WORDS.split())
    counts = rng.lognormal(2.2, 0.6, BANK).clip(1, 200).astype(int)
    texts = [" ".join(words[rng.integers(0, len(words), n)]) for n in counts]
    return pa.table(
        {
            "text": texts,
            "length": pa.array([len(t) for t in texts], pa.int32()),
            "words": pa.array(counts, pa.int32()),
            "lang": [language(t) for t in texts],
        }
    )


@dataclass(frozen=True)
class Rows:
    """One shard of the pool, always the same; ascending uids, of the shard's share of all."""

    shard: int
    shards: int

    def drawn(self, what: int) -> np.random.Generator:
        """Draws of one kind."""
        return np.random.default_rng((self.shard, what))

    def uids(self) -> pa.Array:
        """Ascending, in this shard's part of all uids."""
        rng, pairs = self.drawn(0), np.empty(SHARD, SUBSET_DTYPE)
        # A place of its own for every row: none comes twice.
        places = (self.shard * SHARD + np.arange(SHARD) + rng.random(SHARD)) / (self.shards * SHARD)
        pairs["f0"] = (places * 2.0**53).astype(np.uint64) << np.uint64(11)
        pairs["f1"] = rng.integers(0, 2**64, SHARD, np.uint64)
        return from_halves(pairs)

    def captions(self) -> pa.Table:
        """Rows of the bank."""
        return bank().take(pa.array(self.drawn(1).integers(0, BANK, SHARD)))

    def sizes(self) -> tuple[pa.Array, pa.Array]:
        """Widths and heights."""
        sides = self.drawn(2).lognormal(6.2, 0.7, (2, SHARD)).clip(1, 8000).astype(np.int64)
        return pa.array(sides[0]), pa.array(sides[1])

    def pairs(self) -> dict[str, pa.Array]:
        """The columns of a pair, under the names that DataComp gives them."""
        uids, rng = self.uids(), self.drawn(3)
        hosts = pa.array([f"https://example{i}.com/images" for i in rng.integers(0, 9999, SHARD)])
        width, height = self.sizes()
        return {
            "uid": uids,
            "url": pc.binary_join_element_wise(hosts, uids, "/"),
            "text": self.captions()["text"].combine_chunks(),
            "original_width": width,
            "original_height": height,
            B32: pa.array(rng.normal(0.24, 0.05, SHARD).astype(np.float32)),
            L14: pa.array(rng.normal(0.2, 0.06, SHARD).astype(np.float32)),
        }


class Made(Stage):
    """Writes one folder of the workspace, as the stage of that name would have."""

    settings = MappingProxyType({})

    def __init__(self, name: str, shards: int) -> None:
        self.name, self.shards = name, shards

    def units(self, workspace: Workspace) -> Iterable[Unit]:
        """Every shard."""
        return [Unit(layout.shard_name(i, self.shards)) for i in range(self.shards)]

    def run(self, workspace: Workspace, unit: Unit) -> Outcome:
        """Write it."""
        rows, shard = Rows(int(unit.name), self.shards), unit.name
        if self.name == "ingest":
            path = CANDIDATES.path(shard)
            pairs = rows.pairs()
            none = pa.nulls(SHARD, pa.string())
            more = dict.fromkeys(("title", "page_url", "source", "licence"), none)
            columns = {**{n: pairs.pop(n) for n in ("uid", "url", "text")}, **more, **pairs}
        elif self.name == "score/text":
            path, captions = Family.scores("text").path(shard), rows.captions()
            score = pa.array(rows.drawn(4).random(SHARD, np.float32))
            columns = {f"text_{n}": captions[n].combine_chunks() for n in ("length", "words", "lang")}
            columns = {"uid": rows.uids(), **columns, "text_lang_score": score}
        else:
            path = Family.scores("image").path(shard)
            columns = {f"image_{n}": v for n, v in image_facts(*rows.sizes()).items()}
            columns = {"uid": rows.uids(), **columns}
        return Outcome((workspace.write_table(path, pa.table(columns)),), SHARD, SHARD)


def make_workspace(folder: Path, rows: int) -> None:
    """As after `curate run` up to the scores, with the commit records."""
    shards = rows // SHARD
    workspace = Workspace(str(folder))
    facts = {"shards": shards, "shard_size": SHARD, "candidates": rows, "images": False}
    workspace.write_json(layout.DATASET, facts)
    store = RecordStore(workspace)
    with ProcessPoolExecutor(WORKERS) as executor:
        for name in ("ingest", "score/text", "score/image"):
            stage = Made(name, shards)
            jobs = make_plan(stage, workspace, store).jobs
            work = functools.partial(run_unit, stage, workspace)
            for _ in executor.map(work, jobs, chunksize=8):
                pass
            store.fold(name)


def publish(folder: Path, shards: int, number: int) -> None:
    """One published file; rows in no order, as they come from the web."""
    each = PUBLISHED // SHARD
    part = range(number * each, min((number + 1) * each, shards))
    table = pa.concat_tables([pa.table(Rows(i, shards).pairs()) for i in part])
    rng = np.random.default_rng((number, 9))
    table = table.take(pa.array(rng.permutation(table.num_rows)))
    boxes = pa.array([[]] * table.num_rows, pa.list_(pa.list_(pa.float64())))
    digests = pc.binary_join_element_wise(table["uid"], table["uid"], "")
    table = table.append_column("face_bboxes", boxes).append_column("sha256", digests)
    pq.write_table(table, folder / f"{number:032x}.parquet")


def make_published(folder: Path, rows: int) -> None:
    """Parquet files of all columns that DataComp's have."""
    folder.mkdir(parents=True)
    shards = rows // SHARD
    with ProcessPoolExecutor(WORKERS) as executor:
        for _ in executor.map(functools.partial(publish, folder, shards), range(-(-rows // PUBLISHED))):
            pass


# ---- parts that run in a process of their own --------------------------------------------------------------


OURS = """
import sys, time
from curate.startup import leave_pandas_out
leave_pandas_out()
from curate.cli import main
import curate.config.loading, curate.filter.stage, curate.pipeline, curate.engine.engine
started = time.perf_counter()
try:
    main(["filter", *sys.argv[1:]])
except SystemExit as ended:
    if ended.code:
        raise
inside = time.perf_counter() - started
status = open("/proc/self/status").read().split()
print('{"inside": %f, "memory": %f}' % (inside, int(status[status.index("VmHWM:") + 1]) / 2**20))
"""
"""`curate filter`: what it imports, its time without that, its memory."""


def floor(workspace: str, column: str) -> None:
    """One pass over a column: as the file of the whole column, mapped; as it is in the shards."""
    started = time.perf_counter()
    (path,) = Path(workspace, ".curate", "columns", "candidates").glob(f"{column}-*.arrow")
    with pa.memory_map(str(path)) as source:
        file = pa.ipc.open_file(source)
        for number in range(file.num_record_batches):
            pc.sum(file.get_batch(number).column(0))
    mapped = time.perf_counter() - started
    started = time.perf_counter()
    for shard in sorted(Path(workspace, "candidates").glob("*.parquet")):
        pc.sum(pq.read_table(shard, columns=[column], use_threads=False)[column])
    print(json.dumps({"mapped": mapped, "shards": time.perf_counter() - started}))


def ours(*arguments: str) -> dict[str, Any]:
    """`curate filter`, as a process."""
    return timed(["-c", OURS, *arguments])


def timed(arguments: Sequence[str]) -> dict[str, Any]:
    """A Python program as a process; its last line is JSON, the seconds from start to end are added."""
    started, cpu = time.perf_counter(), cpu_of_children()
    command = [sys.executable, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment_of_users())
    seconds, cpu = time.perf_counter() - started, cpu_of_children() - cpu
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed")
    return {"seconds": seconds, "cpu": cpu, **json.loads(done.stdout.splitlines()[-1])}


def environment_of_users() -> dict[str, str]:
    """Without the switch that makes Python compile everything at every start, as nobody's shell has it."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def cpu_of_children() -> float:
    """Seconds that all processes that have ended had a core: what other work does not change."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# ---- measuring ---------------------------------------------------------------------------------------------


def measure_ours(folder: Path, preset: str, repeats: int) -> dict[str, float]:
    """Cold once, warm `repeats` times: the median."""
    workspace = folder / "work"
    shutil.rmtree(workspace / ".curate" / "columns", ignore_errors=True)
    found = []
    for number in range(repeats + 1):
        name = f"{preset}_{number}"
        config = folder / "config.yaml"
        facts = {
            "workspace": str(workspace),
            "download": None,
            "ingest": {"sources": [{"paths": [str(folder / "published")]}]},
            "score": {"scorers": {"text": {"type": "text"}, "image": {"type": "image"}}},
            "filter": {"experiments": {name: PRESETS[preset][0]}},
            "export": {"tars": False},
        }
        config.write_text(yaml.safe_dump(facts))
        found.append(ours(str(config)))
        if number < repeats:
            shutil.rmtree(workspace / "selections" / name)
            shutil.rmtree(workspace / ".curate" / "records" / "filter" / name, ignore_errors=True)
    (workspace / "selections" / f"{preset}_{repeats}").rename(folder / preset)
    cold, warm = found[0], found[1:]
    return {
        "cold": cold["seconds"],
        "cold_memory": cold["memory"],
        "warm": statistics.median(f["seconds"] for f in warm),
        "inside": statistics.median(f["inside"] for f in warm),
        "cpu": statistics.median(f["cpu"] for f in warm),
        "memory": max(f["memory"] for f in warm),
    }


def published_rules(preset: str) -> dict[str, Any]:
    """The experiment on files that have no language."""
    rules = dict(PRESETS[preset][0]["rules"])
    if "language" in rules:
        rules["language"] = ENGLISH
    return {"rules": rules}


def measure_published(folder: Path, preset: str, repeats: int) -> dict[str, float]:
    """The files as they are, with nothing prepared, and once their columns are kept: medians."""
    direct, config = folder / "direct", folder / "direct.yaml"
    facts = {
        "workspace": str(direct),
        "score": {"scorers": {"text": {"type": "text"}, "image": {"type": "image"}}},
        "filter": {
            "tables": {"paths": [str(folder / "published")]},
            "experiments": {preset: published_rules(preset)},
        },
    }
    config.write_text(yaml.safe_dump(facts))
    found: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for keep, runs in found.items():
        for number in range(repeats + keep):
            # What is kept stays; that there is a selection already would be seen.
            shutil.rmtree(direct / "selections" if keep and number else direct, ignore_errors=True)
            runs.append(ours(str(config), "--set", f"filter.tables.keep_columns={str(keep).lower()}"))
            theirs, mine = folder / preset / "subset.npy", direct / "selections" / preset / "subset.npy"
            if theirs.read_bytes() != mine.read_bytes():
                raise SystemExit(f"{preset}: the workspace and the published files give other rows")
    as_they_are, (first, *kept) = found[False], found[True]
    return {
        "seconds": statistics.median(f["seconds"] for f in as_they_are),
        "inside": statistics.median(f["inside"] for f in as_they_are),
        "cpu": statistics.median(f["cpu"] for f in as_they_are),
        "keeping": first["seconds"],
        "kept": statistics.median(f["seconds"] for f in kept),
        "memory": max(f["memory"] for runs in found.values() for f in runs),
    }


def measure_peer(folder: Path, preset: str, checkout: str, python: str, repeats: int) -> dict[str, float]:
    """DataComp's function, as often as ours: the medians; what it keeps is in `<preset>.npy`."""
    runs = [run_peer(folder, preset, checkout, python) for _ in range(repeats)]
    found = {key: statistics.median(run[key] for run in runs) for key in ("seconds", "inside", "cpu")}
    return {**found, "memory": max(run["memory"] for run in runs)}


def run_peer(folder: Path, preset: str, checkout: str, python: str) -> dict[str, float]:
    """DataComp's function once, as a process."""
    from datacomp import peer

    job = {
        **PRESETS[preset][1],
        "metadata": str(folder / "published"),
        "save": str(folder / f"{preset}.npy"),
        "workers": WORKERS,
    }
    assets = folder / "assets"
    assets.mkdir(exist_ok=True)
    started, cpu = time.perf_counter(), cpu_of_children()
    command = peer(python, checkout, assets, [job], whole=True)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment_of_users(),
    ) as process:
        largest = [0.0]
        watcher = threading.Thread(target=watch, args=(process, largest))
        watcher.start()
        output, _ = process.communicate()
        seconds = time.perf_counter() - started
        watcher.join()
    if process.returncode or json.loads(output.splitlines()[-1])[0]["error"]:
        raise SystemExit(f"the peer failed at {preset}: {output}")
    inside = json.loads(output.splitlines()[-1])[0]["seconds"]
    cpu = cpu_of_children() - cpu
    return {"seconds": seconds, "inside": inside, "cpu": cpu, "memory": largest[0]}


def watch(process: subprocess.Popen[str], largest: list[float]) -> None:
    """The largest sum of what a process and its children hold, each shared page counted once, in GiB."""
    import psutil

    parent = psutil.Process(process.pid)
    while process.poll() is None:
        total = 0
        for member in [parent, *parent.children(recursive=True)]:
            try:
                total += member.memory_full_info().pss
            except psutil.Error:
                continue
        largest[0] = max(largest[0], total / 2**30)
        time.sleep(0.1)


def compare(folder: Path, preset: str) -> int:
    """Rows that the peer has besides ours: none, or those at the cut of a fraction.

    Raises:
        SystemExit: any other difference.
    """
    mine, theirs = np.load(folder / preset / "subset.npy"), np.load(folder / f"{preset}.npy")
    # The first halves are unique in these pools, and numbers are searched faster than records.
    places = np.searchsorted(theirs["f0"], mine["f0"]).clip(max=max(len(theirs) - 1, 0))
    extra = np.ones(len(theirs), bool)
    extra[places] = False
    if not np.array_equal(theirs[places], mine):
        raise SystemExit(f"{preset}: rows that the peer does not keep")
    job = PRESETS[preset][1]
    if "fraction" not in job:
        if extra.any():
            raise SystemExit(f"{preset}: {extra.sum()} rows are missing")
        return 0
    scores = scores_of(folder / "published", f"clip_{job['arch']}_similarity_score")
    values = np.sort(scores["score"])[::-1]
    index = int(len(values) * job["fraction"])
    at_cut = scores[np.isin(scores["uid"], theirs["f0"][extra])]["score"]
    right = len(mine) == index and len(theirs) == np.count_nonzero(values >= values[index])
    if not right or (at_cut != values[index]).any():
        raise SystemExit(f"{preset}: not the row at the index and its ties")
    return int(extra.sum())


def scores_of(folder: Path, column: str) -> npt.NDArray[np.void]:
    """First half of the uid, and score, of all rows."""
    parts = []
    for path in sorted(folder.glob("*.parquet")):
        table = pq.read_table(path, columns=["uid", column])
        part = np.empty(table.num_rows, [("uid", "u8"), ("score", "f4")])
        part["uid"], part["score"] = halves(table["uid"])["f0"], table[column].to_numpy()
        parts.append(part)
    return np.concatenate(parts)


def measure(folder: Path, rows: int, options: argparse.Namespace, with_peer: bool) -> dict[str, Any]:
    """One size of the pool: every preset by both."""
    say(f"{rows:,} rows: making them")
    make_workspace(folder / "work", rows)
    if with_peer or options.published:
        make_published(folder / "published", rows)
    found: dict[str, Any] = {}
    for preset in options.presets:
        facts: dict[str, Any] = {"ours": measure_ours(folder, preset, options.repeats)}
        if with_peer or options.published:
            facts["published"] = measure_published(folder, preset, options.repeats)
        if with_peer:
            facts["peer"] = measure_peer(folder, preset, options.datacomp, options.python, options.repeats)
            facts["peer_has_more"] = compare(folder, preset)
        if preset == HEADLINE:
            found["floor"] = timed([__file__, "--part", "floor", str(folder / "work"), L14])
        found[preset] = facts
        say(f"{rows:,} {preset} {json.dumps(rounded(facts))}")
    return found


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def rounded(facts: Any) -> Any:
    """Numbers to be read."""
    if isinstance(facts, dict):
        return {k: rounded(v) for k, v in facts.items()}
    return round(facts, 3) if isinstance(facts, float) else facts


def print_table(sizes: dict[int, dict[str, Any]], presets: Sequence[str]) -> None:
    """Seconds, per million rows too, and memory."""
    print(
        f"{'rows':>12} {'filter':<20}{'cold s':>8}{'warm s':>8}{'inside':>8}{'cpu':>7}{'s/M':>7}{'GiB':>6}",
        end="",
    )
    print(f"{'cold':>6}{'tables s':>10}{'inside':>8}{'cpu':>7}{'kept s':>8}{'GiB':>6}", end="")
    print(f"{'peer s':>9}{'inside':>9}{'cpu':>8}{'s/M':>7}{'GiB':>6}{'more':>6}")
    for rows, found in sizes.items():
        for preset in presets:
            mine, peer = found[preset]["ours"], found[preset].get("peer")
            print(
                f"{rows:>12,} {preset:<20}{mine['cold']:>8.2f}{mine['warm']:>8.2f}{mine['inside']:>8.2f}",
                end="",
            )
            print(f"{mine['cpu']:>7.2f}{mine['warm'] * 1e6 / rows:>7.3f}{mine['memory']:>6.2f}", end="")
            print(f"{mine['cold_memory']:>6.2f}", end="")
            if direct := found[preset].get("published"):
                print(f"{direct['seconds']:>10.2f}{direct['inside']:>8.2f}{direct['cpu']:>7.2f}", end="")
                print(f"{direct['kept']:>8.2f}{direct['memory']:>6.2f}", end="")
            if peer:
                print(f"{peer['seconds']:>9.2f}{peer['inside']:>9.2f}{peer['cpu']:>8.2f}", end="")
                print(f"{peer['seconds'] * 1e6 / rows:>7.2f}", end="")
                print(f"{peer['memory']:>6.2f}{found[preset]['peer_has_more']:>6}", end="")
            print()


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=12_800_000, help="a multiple of 10,000")
    parser.add_argument("--scale", type=int, help="run ours at this size, too")
    parser.add_argument(
        "--datacomp", help="a checkout of mlfoundations/datacomp; without it there is no peer"
    )
    parser.add_argument("--venv", type=Path, default=Path(tempfile.gettempdir()) / "curate-datacomp-venv")
    parser.add_argument("--peer-rows", type=int, help="run the peer at this size and scale its seconds")
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=list(PRESETS))
    parser.add_argument(
        "--published", action="store_true", help="measure published files without a peer, too"
    )
    parser.add_argument("--repeats", type=int, default=3, help="warm runs, and runs of the peer")
    parser.add_argument("--scratch", type=Path, help="where the pools are made for the time of the run")
    parser.add_argument("--part", choices=("floor",), help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.peer_rows = options.peer_rows or options.rows
    for rows in (options.rows, options.peer_rows, options.scale):
        if rows is not None and (rows < SHARD or rows % SHARD):
            parser.error(f"rows come in shards of {SHARD:,}")
    return options


def main() -> int:
    """Run everything; the last line says it all."""
    options = arguments()
    if options.part:
        floor(*options.rest)
        return 0
    sys.path.insert(0, str(ROOT / "scripts" / "golden"))
    if options.datacomp:
        from datacomp import environment

        options.python = environment(options.venv, [TORCH])
    wanted = sorted({options.rows, *([options.scale] if options.scale else [])})
    if options.datacomp:
        wanted = sorted({*wanted, options.peer_rows})
    sizes: dict[int, dict[str, Any]] = {}
    for rows in wanted:
        with tempfile.TemporaryDirectory(prefix="curate-bench-", dir=options.scratch) as scratch:
            with_peer = bool(options.datacomp) and rows == options.peer_rows
            sizes[rows] = measure(Path(scratch), rows, options, with_peer)
    print_table(sizes, options.presets)
    found = result(sizes, options)
    print(json.dumps(found))
    return 0 if found["ok"] else 1


def result(sizes: dict[int, dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """The figures at the full size against the bars; of a filter's ratio, both with their start-up."""
    found, scale = sizes[options.rows], options.rows / options.peer_rows
    filters, passed = {}, []
    for preset in options.presets:
        mine = found[preset]["ours"]
        facts = {key: mine[key] for key in ("cold", "warm", "inside", "cpu", "memory", "cold_memory")}
        passed.append(mine["warm"] < BAR_SECONDS and max(mine["memory"], mine["cold_memory"]) < BAR_MEMORY)
        if options.datacomp:
            peer = sizes[options.peer_rows][preset]["peer"]
            # Its start-up is not a matter of rows.
            facts["peer"] = peer["seconds"] + (scale - 1) * peer["inside"]
            facts |= {"peer_inside": peer["inside"] * scale, "peer_memory": peer["memory"]}
            facts["ratio"] = facts["peer"] / mine["warm"]
            facts["ratio_cold"] = facts["peer"] / mine["cold"]
            facts["ratio_inside"] = facts["peer_inside"] / mine["inside"]
            if scale == 1:
                facts |= {"peer_cpu": peer["cpu"], "ratio_cpu": peer["cpu"] / mine["cpu"]}
            passed.append(facts["ratio"] >= BAR_RATIO)
            direct = sizes[options.peer_rows][preset]["published"]
            limit, times = BAR_PUBLISHED.get(preset, (5.0, 5.0))
            facts["published"] = {
                **direct,
                "ratio": peer["seconds"] / direct["seconds"],
                "ratio_kept": peer["seconds"] / direct["kept"],
                "ratio_inside": peer["inside"] / direct["inside"],
            }
            passed += [direct["seconds"] < limit, facts["published"]["ratio"] >= times]
            passed.append(direct["memory"] < BAR_MEMORY)
        filters[preset] = facts
    head = filters.get(HEADLINE) or filters[options.presets[0]]
    floors = found.get("floor", {})
    return rounded(
        {
            "bench": "filter",
            "ours": head["warm"],
            "peer": head.get("peer"),
            "ratio": head.get("ratio"),
            "floor": floors.get("mapped"),
            "floor_shards": floors.get("shards"),
            "bar": {
                "seconds": BAR_SECONDS,
                "ratio": BAR_RATIO,
                "memory_gib": BAR_MEMORY,
                "published": {"seconds": 5.0, "ratio": 5.0, "basic_seconds": 8.0, "basic_ratio": 3.0},
            },
            "ok": all(passed) and bool(options.datacomp),
            "unit": "s",
            "rows": options.rows,
            "peer_rows": options.peer_rows if options.datacomp else 0,
            "scaled": bool(options.datacomp) and options.peer_rows != options.rows,
            "cores": len(os.sched_getaffinity(0)),
            "filters": filters,
            "s_per_million": {
                str(rows): {p: one[p]["ours"]["warm"] * 1e6 / rows for p in options.presets}
                for rows, one in sizes.items()
            },
        }
    )


if __name__ == "__main__":
    sys.exit(main())

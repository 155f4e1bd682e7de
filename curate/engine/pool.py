"""Where units run: this process, a Dask cluster on this machine, Slurm, or a scheduler's address.

A pool is started when there is work for it, keeps a bounded number of units in flight, and moves
only small records.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol
from urllib.parse import urlsplit

from curate import extras
from curate.config.models import RunSettings
from curate.engine.logs import own_loggers
from curate.engine.plan import Job
from curate.engine.reporting import TOPIC, Send, received, send_to_scheduler
from curate.errors import ClusterLostError, CurateError, UserError
from curate.plugins import loaded_files

Finished = tuple[Job, Any, BaseException | None]
"""A job with its result, or with the exception that it ended in."""

Work = Callable[..., Any]
"""Called with the fixed arguments, a job, and a function that carries reports (or None)."""

WINDOW_PER_THREAD = 2
"""Units in flight per worker thread: one that runs and one that waits."""

JOBS_PER_GPU = 2
"""One shard is read and written while the other's batches keep the device busy."""

GPU_MEMORY_SHARES = 4
"""What a GPU's worker may use of the machine's memory, in shares of which another worker has one: it
holds a model while it loads, and CUDA's own pages."""

LEAST_MEMORY = 256 << 20
"""Bytes of a worker below which Python and its libraries alone do not fit."""

WORKERS_PER_CORE = 32
"""More worker processes than this for each core is a slip of the keyboard."""

CONNECT_SECONDS = 15

WORKER_SETUP = "curate.engine.worker_setup"


class Pool(Protocol):
    """Does jobs, in no order that matters."""

    def run(
        self, function: Work, args: tuple[Any, ...], jobs: Iterable[Job], gpu: bool, hear: Send
    ) -> Iterator[Finished]:
        """Yield every job with ``function(*args, job, send)`` or its exception.

        Args:
            hear: is called with the reports of units that run, by any thread.
        """

    def close(self) -> None:
        """Stop workers."""


class SynchronousPool:
    """One job after the other in this process."""

    def run(
        self, function: Work, args: tuple[Any, ...], jobs: Iterable[Job], gpu: bool, hear: Send
    ) -> Iterator[Finished]:
        """Yield every job with its result or exception."""
        for job in jobs:
            try:
                yield job, function(*args, job, hear), None
            except Exception as error:  # noqa: BLE001 - whatever a unit raises is the engine's to judge
                yield job, None, error

    def close(self) -> None:
        """Nothing to stop."""


class DaskPool:
    """Jobs as Dask tasks on a cluster that this pool starts or joins.

    Raises:
        UserError: the cluster cannot be started or reached.
    """

    def __init__(self, settings: RunSettings) -> None:
        import dask

        # A job that takes its worker down is ours to retry and to quarantine, not the scheduler's.
        dask.config.set(
            {
                "distributed.scheduler.allowed-failures": 1,
                "distributed.comm.timeouts.connect": "60s",
                # A worker that owns a GPU starts processes that decode for it.
                "distributed.worker.daemon": False,
            }
        )
        self._cluster: Any = None
        self._where = settings.cluster if "://" in settings.cluster else f"the {settings.cluster} cluster"
        with self._explained(settings):
            from distributed import Client

            own_loggers()
            self._cluster = _cluster(settings)
            seconds = CONNECT_SECONDS if self._cluster is None else 60
            self._client = Client(self._cluster or settings.cluster, timeout=f"{seconds}s")
            for file in loaded_files():
                from curate.engine.worker_setup import BringPlugin

                self._client.register_plugin(BringPlugin(file), name=file.module)

    def run(
        self, function: Work, args: tuple[Any, ...], jobs: Iterable[Job], gpu: bool, hear: Send
    ) -> Iterator[Finished]:
        """Yield every job with its result or exception, as they complete.

        Raises:
            ClusterLostError: the scheduler is gone.
        """
        from distributed import as_completed

        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        threads = sum(int(w["nthreads"]) for w in workers) or 1
        gpus = sum(float(w["resources"].get("GPU", 0)) for w in workers)
        resources = {"GPU": 1 / JOBS_PER_GPU} if gpu and gpus else None
        window = max(2, WINDOW_PER_THREAD * (int(gpus * JOBS_PER_GPU) if resources else threads))
        waiting = iter(jobs)
        running: dict[Any, Job] = {}
        completed = as_completed()

        def submit() -> None:
            for job in waiting:
                task = (*args, job, send_to_scheduler)
                future = self._client.submit(function, *task, pure=False, resources=resources)
                running[future.key] = job
                completed.add(future)
                return

        def tell(event: Any) -> None:
            report = received(event)
            if report is not None:
                hear(report)

        self._client.subscribe_topic(TOPIC, tell)
        try:
            for _ in range(window):
                submit()
            for future in completed:
                job = running.pop(future.key)
                error = future.exception()
                if future.cancelled() or self._client.status != "running":
                    raise self._lost()
                result = None if error is not None else future.result()
                future.release()
                submit()
                yield job, result, error
        except OSError as error:  # what Dask calls a broken connection
            raise self._lost() from error
        finally:
            with contextlib.suppress(Exception):
                self._client.unsubscribe_topic(TOPIC)
                self._client.cancel(list(completed.futures), force=True)

    def close(self) -> None:
        """Close client and, when it is ours, the cluster."""
        with contextlib.suppress(Exception):
            self._client.close(timeout=5)
        self._stop()

    def _stop(self) -> None:
        if self._cluster is not None:
            with contextlib.suppress(Exception):
                self._cluster.close(timeout=10)

    def _lost(self) -> ClusterLostError:
        return ClusterLostError(
            f"run.cluster: {self._where} is gone; what was committed is kept, and the same command goes on "
            "from there"
        )

    @contextlib.contextmanager
    def _explained(self, settings: RunSettings) -> Iterator[None]:
        try:
            yield
        except CurateError:
            self._stop()
            raise
        except (OSError, TimeoutError) as error:
            self._stop()
            if "://" in settings.cluster:
                raise UserError(
                    f"run.cluster: no Dask scheduler answers at {settings.cluster} ({_words(error)}); start "
                    "one there (`dask scheduler`), or use `local`"
                ) from None
            raise UserError(f"run.cluster: {self._where} does not start: {_words(error)}") from None
        except Exception as error:  # noqa: BLE001 - a worker that dies while it starts can raise anything
            self._stop()
            raise UserError(
                f"run.cluster: {self._where} does not start: {_words(error)}; `curate doctor` checks this "
                "machine, run.memory_limit and run.workers say what a worker gets"
            ) from None


def _words(error: BaseException) -> str:
    """The innermost cause on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300] or type(error).__name__


def check_cluster(settings: RunSettings) -> Iterator[str]:
    """What is wrong with the settings, as far as can be told without starting anything."""
    cluster = settings.cluster
    if "://" not in cluster and cluster not in ("local", "synchronous", "slurm"):
        yield (
            f"run.cluster: '{cluster}' is none of local, synchronous, slurm, "
            "nor an address such as tcp://host:8786"
        )
    if cluster == "slurm" and not extras.has("dask_jobqueue"):
        yield str(extras.missing("dask_jobqueue", "run.cluster: slurm"))
    if cluster.startswith("tcp://"):
        yield from _check_address(cluster)
    most = WORKERS_PER_CORE * (os.cpu_count() or 1)
    if cluster == "local" and settings.workers is not None and settings.workers > most:
        yield f"run.workers: {settings.workers:,} worker processes on {os.cpu_count()} cores; at most {most}"
    if cluster == "local" and settings.memory_limit is not None:
        yield from _check_memory(settings.memory_limit)


def _check_address(address: str) -> Iterator[str]:
    """Whether anything listens there at all; what it is, is seen when it is joined."""
    try:
        place = urlsplit(address)
        with socket.create_connection((place.hostname or "", place.port or 0), timeout=5):
            return
    except (OSError, ValueError) as error:
        yield (
            f"run.cluster: nothing answers at {address} ({_words(error)}); start a scheduler there "
            "(`dask scheduler`), or use `local`"
        )


def _check_memory(limit: str) -> Iterator[str]:
    from dask.utils import parse_bytes

    try:
        found = parse_bytes(limit)
    except ValueError:
        yield f"run.memory_limit: '{limit}' is no size; write it as 8GiB or 500MB"
        return
    if found < LEAST_MEMORY:
        yield f"run.memory_limit: {limit} is too little for a worker; at least {LEAST_MEMORY >> 20}MiB"


def start_pool(settings: RunSettings) -> Pool:
    """The pool that the settings ask for."""
    if settings.cluster == "synchronous":
        return SynchronousPool()
    return DaskPool(settings)


def _cluster(settings: RunSettings) -> Any:
    """A cluster of our own, or None when the setting is a scheduler's address."""
    if "://" in settings.cluster:
        return None
    return _slurm(settings) if settings.cluster == "slurm" else _local(settings)


def _local(settings: RunSettings) -> Any:
    """Worker processes of one thread each, plus one per GPU that sees only that GPU.

    A GPU's worker does ``JOBS_PER_GPU`` units at once: their batches take turns on the device.
    """
    from distributed import Nanny, Scheduler, SpecCluster
    from distributed.system import MEMORY_LIMIT

    count = settings.workers or os.cpu_count() or 1
    gpus = _gpu_count()
    limit = settings.memory_limit or int(MEMORY_LIMIT / (count + GPU_MEMORY_SHARES * gpus))
    common = {
        "nthreads": 1,
        "memory_limit": limit,
        "silence_logs": logging.CRITICAL,
        "dashboard": False,
        "preload": [WORKER_SETUP],
    }
    workers: dict[Any, Any] = {i: {"cls": Nanny, "options": common} for i in range(count)}
    for gpu in range(gpus):
        own = {
            "env": {"CUDA_VISIBLE_DEVICES": str(gpu), "CURATE_GPUS": str(gpus)},
            "resources": {"GPU": 1},
            "nthreads": JOBS_PER_GPU,
            "memory_limit": settings.memory_limit or GPU_MEMORY_SHARES * limit,
        }
        workers[f"gpu{gpu}"] = {"cls": Nanny, "options": {**common, **own}}
    scheduler = {
        "cls": Scheduler,
        "options": {
            "host": "127.0.0.1",
            "dashboard": settings.dashboard is not None,
            "dashboard_address": settings.dashboard or "127.0.0.1:0",
        },
    }
    return SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.CRITICAL)


def _slurm(settings: RunSettings) -> Any:
    from dask_jobqueue import SLURMCluster  # type: ignore[attr-defined]

    cluster = SLURMCluster(**settings.slurm)
    cluster.scale(settings.workers or 1)  # type: ignore[no-untyped-call]
    return cluster


def _gpu_count() -> int:
    """CUDA devices, without starting a CUDA context in the driver."""
    if not extras.has("torch"):
        return 0
    import torch

    return int(torch.cuda.device_count())

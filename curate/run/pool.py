"""Where units run: this process, a Dask cluster on this machine, Slurm, or a scheduler's address.

A pool is started when there is work for it, keeps a bounded number of units in flight, and moves
only small records.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from curate.config.models import RunSettings
from curate.errors import UserError
from curate.run.plan import Job

Work = Callable[[Job], Any]
Finished = tuple[Job, Any, BaseException | None]
"""A job with its result, or with the exception that it ended in."""

WINDOW_PER_THREAD = 2
"""Units in flight per worker thread: one that runs and one that waits."""


JOBS_PER_GPU = 2
"""One shard is read and written while the other's batches keep the device busy."""


GPU_MEMORY_SHARES = 4
"""What a GPU's worker may use of the machine's memory, in shares of which another worker has one: it
holds a model while it loads, and CUDA's own pages."""


class Pool(Protocol):
    """Does jobs, in no order that matters."""

    def run(
        self, function: Callable[..., Any], args: tuple[Any, ...], jobs: Iterable[Job], gpu: bool
    ) -> Iterator[Finished]:
        """Yield every job with ``function(*args, job)`` or its exception."""

    def close(self) -> None:
        """Stop workers."""


class SynchronousPool:
    """One job after the other in this process."""

    def run(
        self, function: Callable[..., Any], args: tuple[Any, ...], jobs: Iterable[Job], gpu: bool
    ) -> Iterator[Finished]:
        """Yield every job with its result or exception."""
        for job in jobs:
            try:
                yield job, function(*args, job), None
            except Exception as error:  # noqa: BLE001 - whatever a unit raises is the engine's to judge
                yield job, None, error

    def close(self) -> None:
        """Nothing to stop."""


class DaskPool:
    """Jobs as Dask tasks on a cluster that this pool starts or joins."""

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
        from distributed import Client

        self._cluster = _cluster(settings)
        self._client = Client(self._cluster or settings.cluster, timeout="60s")

    def run(
        self, function: Callable[..., Any], args: tuple[Any, ...], jobs: Iterable[Job], gpu: bool
    ) -> Iterator[Finished]:
        """Yield every job with its result or exception, as they complete."""
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
                future = self._client.submit(function, *args, job, pure=False, resources=resources)
                running[future.key] = job
                completed.add(future)
                return

        try:
            for _ in range(window):
                submit()
            for future in completed:
                job = running.pop(future.key)
                error = future.exception()
                result = None if error is not None else future.result()
                future.release()
                submit()
                yield job, result, error
        finally:
            self._client.cancel(list(completed.futures), force=True)

    def close(self) -> None:
        """Close client and, when it is ours, the cluster."""
        with contextlib.suppress(Exception):
            self._client.close(timeout=5)
        if self._cluster is not None:
            with contextlib.suppress(Exception):
                self._cluster.close(timeout=10)


def start_pool(settings: RunSettings) -> Pool:
    """The pool that the settings ask for."""
    if settings.cluster == "synchronous":
        return SynchronousPool()
    return DaskPool(settings)


def _cluster(settings: RunSettings) -> Any:
    """A cluster of our own, or None when the setting is a scheduler's address."""
    if "://" in settings.cluster:
        return None
    if settings.cluster == "slurm":
        return _slurm(settings)
    if settings.cluster != "local":
        raise UserError(
            f"run.cluster: '{settings.cluster}' is none of local, synchronous, slurm, "
            "nor an address such as tcp://host:8786"
        )
    return _local(settings)


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
        "silence_logs": logging.ERROR,
        "dashboard": False,
        "preload": ["curate.run.worker_setup"],
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
    return SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.ERROR)


def _slurm(settings: RunSettings) -> Any:
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise UserError("run.cluster: slurm needs the extra package: pip install dask-jobqueue") from None
    options = dict(settings.slurm)
    cluster = SLURMCluster(**options)
    cluster.scale(settings.workers or 1)
    return cluster


def _gpu_count() -> int:
    """CUDA devices, without starting a CUDA context in the driver."""
    import torch

    return int(torch.cuda.device_count())

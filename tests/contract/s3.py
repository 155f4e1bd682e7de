"""An S3 server on loopback: moto's, in a process of its own, which ends with the test session."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import s3fs

_SERVER = """
import os, sys, threading
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
server.start()
print("port", server.get_host_and_port()[1], flush=True)
sys.stdin.read()  # ends when the parent does
os._exit(0)
"""


@dataclass(frozen=True)
class S3:
    """A server and how to get at it."""

    endpoint: str

    @property
    def options(self) -> dict[str, Any]:
        """``storage_options`` of a workspace there."""
        return {
            "key": "testing",
            "secret": "testing",
            "endpoint_url": self.endpoint,
        }

    @property
    def environment(self) -> dict[str, str]:
        """The same for a command that is told nothing but the URL."""
        return {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def bucket(self, name: str) -> str:
        """Make a bucket; its URL."""
        s3fs.S3FileSystem(**self.options, skip_instance_cache=True).mkdir(name)
        return f"s3://{name}"


@contextlib.contextmanager
def serve_s3() -> Iterator[S3]:
    """Start a server, and stop it."""
    command = [sys.executable, "-c", _SERVER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            port = next(line.split()[1] for line in process.stdout if line.startswith("port "))
            endpoint = f"http://127.0.0.1:{port}"
            for _ in range(100):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(endpoint, timeout=5).close()
                    break
                time.sleep(0.1)
            yield S3(endpoint)
        finally:
            process.stdin.close()
            process.wait(10)

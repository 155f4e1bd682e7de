"""Every logger of the process is ours: libraries speak up when something is wrong, or when they are asked.

Progress and results are not logged; they are printed. What is left are the libraries below, each of which
has its own idea of what is worth a line.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings

LEVELS = ("debug", "info", "warning", "error")
DEFAULT = "error"
VARIABLE = "CURATE_LOG_LEVEL"
"""Environment variable that carries the level to worker processes."""


def set_level(level: str) -> None:
    """Own the loggers of this process, and of those that it starts from now on."""
    os.environ[VARIABLE] = level
    # Set by itself, the hub's client would print each of its lines twice.
    os.environ.setdefault("HF_HUB_VERBOSITY", level)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", level)
    own_loggers()


def own_loggers() -> None:
    """Send all loggers to one handler, at the level that the environment says."""
    level = getattr(logging, os.environ.get(VARIABLE, DEFAULT).upper(), logging.ERROR)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(level)
    # What this program itself has to say, such as which file is damaged, is never left out.
    logging.getLogger("curate").setLevel(min(level, logging.WARNING))
    logging.captureWarnings(True)
    if level > logging.WARNING:
        warnings.simplefilter("ignore")
    # What was imported before has set itself up.
    for name in list(logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        if logger.handlers:
            logger.handlers[:] = []
            logger.propagate = True
        if logger.level and name != "curate":
            logger.setLevel(level)

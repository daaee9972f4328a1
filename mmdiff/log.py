"""One logger for the library: messages on standard error, results stay on standard output."""

import logging
import sys

NAME = "mmdiff"


def get_logger() -> logging.Logger:
    """Return the library's logger, writing to standard error."""
    logger = logging.getLogger(NAME)
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(levelname).1s %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return logger

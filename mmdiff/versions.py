"""Which software made something: versions for records and protocols."""

import platform
from collections.abc import Iterable
from importlib import metadata

import mmdiff


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python, mmdiff and those packages that are installed."""
    versions = {"python": platform.python_version(), "mmdiff": mmdiff.__version__}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions

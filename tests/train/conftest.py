"""Make the toy task importable, here and in the processes that tests start."""

import sys
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def any_precision():
    """Let the next run in this process choose its own precision: accelerate keeps the first one's."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()

"""The tap on which all dialogues of this folder are tracked."""

import pytest
from tap import Tap


@pytest.fixture
def tap(tmp_path):
    """A tap that writes its captures to a folder of this test."""
    return Tap(tmp_path)

"""The folder of real videos, captions and texts that `VIDLANKD_DATA` names."""

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("VIDLANKD_DATA", "missing"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="VIDLANKD_DATA names no folder of real data")

"""The numpy oracle and the made batches are those of tests/functional."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "functional"))

"""The grounded world: a synthetic data set whose videos show what things look like and whose text never says it."""

from ...evaluation import TASKS
from .build import build_world
from .probe import probe_model
from .task import WORLD

TASKS["world"] = WORLD

__all__ = ["build_world", "probe_model"]

"""The grounded world: what things look like is in its videos and never in its text."""

from ...evaluation import TASKS
from .build import build_world
from .probe import probe_model
from .task import WORLD

TASKS["world"] = WORLD

__all__ = ["build_world", "probe_model"]

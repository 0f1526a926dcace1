"""Downstream tasks: what a student is worth, fine-tuned and as it is."""

from .glue import GLUE
from .piqa import PIQA
from .squad import SQUAD
from .swag import SWAG
from .tracie import TRACIE
from .world import WORLD
from .zero_shot import ZERO_SHOT

TASKS = {**GLUE, **SQUAD, "swag": SWAG, "piqa": PIQA, **TRACIE, "world": WORLD, **ZERO_SHOT}

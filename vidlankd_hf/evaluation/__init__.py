"""Downstream tasks: what a student is worth, fine-tuned and as it is."""

from .glue import GLUE
from .piqa import PIQA
from .squad import SQUAD
from .swag import SWAG
from .tracie import TRACIE
from .zero_shot import ZERO_SHOT

TASKS = {**GLUE, **SQUAD, "swag": SWAG, "piqa": PIQA, **TRACIE, **ZERO_SHOT}

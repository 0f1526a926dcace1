"""Downstream tasks: fine-tuning, zero-shot scores, probes, grounding and reports."""

from typing import Any

from .glue import GLUE
from .multiple_choice import MULTIPLE_CHOICE
from .squad import SQUAD
from .tracie import TRACIE
from .zero_shot import ZERO_SHOT

TASKS: dict[str, Any] = {**GLUE, **SQUAD, **MULTIPLE_CHOICE, **TRACIE, **ZERO_SHOT}

"""Where the example scripts and the launch configurations are, and how settings become their options."""

import json
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parents[1]
# A wheel holds them inside the package; in a checkout they are next to it.
_ROOT = _PACKAGE if (_PACKAGE / "examples").is_dir() else _PACKAGE.parent
EXAMPLES = _ROOT / "examples"
ACCELERATE_CONFIGS = _ROOT / "accelerate_configs"


def flags(settings: dict[str, Any]) -> list[str]:
    """Turns settings into command-line arguments; dicts become JSON."""
    arguments = []
    for name, value in settings.items():
        values = value if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else value]
        arguments += [f"--{name}", *map(str, values)]
    return arguments

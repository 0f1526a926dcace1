"""Where the example scripts and the launch configurations are."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
# A wheel holds them inside the package; in a checkout they are next to it.
_ROOT = _PACKAGE if (_PACKAGE / "examples").is_dir() else _PACKAGE.parent
EXAMPLES = _ROOT / "examples"
ACCELERATE_CONFIGS = _ROOT / "accelerate_configs"

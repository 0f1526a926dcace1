"""The example scripts: where they are, which command runs which, and how settings become their options."""

import json
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
# A wheel holds them inside the package; in a checkout they are next to it.
_ROOT = PACKAGE if (PACKAGE / "examples").is_dir() else PACKAGE.parent
EXAMPLES = _ROOT / "examples"
ACCELERATE_CONFIGS = _ROOT / "accelerate_configs"
# Command -> example. The examples' names are also the sections of a settings file.
COMMANDS = {
    "make-world": "make_world", "extract": "extract_features", "inspect": "inspect_data", "prepare": "prepare",
    "teacher": "pretrain_teacher", "vokenize": "vokenize", "distill": "distill", "probe": "probe", "ground": "ground",
    "finetune": "finetune", "evaluate": "evaluate_all", "ablate": "ablate", "reproduce": "reproduce",
    "real-nouns": "real_nouns", "demo": "demo", "plot": "plot_run", "convert": "convert_original",
    "convert-howto100m": "convert_howto100m", "import-features": "import_features",
}  # fmt: skip


def overview() -> str:
    """The output of `vidlankd` without a command: every command with the first line of its example."""
    lines = [
        f"  {command:<19}{(EXAMPLES / name).with_suffix('.py').read_text().splitlines()[0][3:]}"
        for command, name in COMMANDS.items()
    ]
    return "\n".join([
        "usage: vidlankd COMMAND [--option value ...]\n", *lines,
        "\n`vidlankd COMMAND --help` shows the options of a command. To use several processes or GPUs:",
        "    accelerate launch -m vidlankd_hf.examples.distill\n",
        f"Recipes: {EXAMPLES / 'recipes'}. Launch configurations: {ACCELERATE_CONFIGS}.",
        "Errors about wrong input are shown without a traceback; VIDLANKD_TRACEBACK=1 shows it.",
    ])  # fmt: skip


def flags(settings: dict[str, Any]) -> list[str]:
    """Turns settings into command-line arguments; dicts become JSON."""
    arguments = []
    for name, value in settings.items():
        values = value if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else value]
        arguments += [f"--{name}", *map(str, values)]
    return arguments

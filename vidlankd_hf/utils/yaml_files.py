"""Reads YAML files that may come from someone else."""

from pathlib import Path
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """Refuses aliases: a few lines of them can expand to gigabytes."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.YAMLError(f"line {event.start_mark.line + 1}: write the value instead of *{event.anchor}")
        return super().compose_node(parent, index)


def read_yaml(path: str | Path) -> Any:
    """Reads a YAML file.

    Raises:
        ValueError: The file is not valid YAML, or uses aliases.
    """
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a YAML file of settings: {error}") from error

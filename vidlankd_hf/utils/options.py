"""Options of the command line, as fields of dataclasses that `HfArgumentParser` reads."""

from dataclasses import field
from typing import Any


def option(default: Any, help: str) -> Any:
    """A dataclass field with the help text of its option."""
    return field(default=default, metadata={"help": help})

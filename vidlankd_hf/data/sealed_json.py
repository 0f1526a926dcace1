"""JSON objects that hold their own checksum, so that a flipped bit in a count or a name is noticed."""

from pathlib import Path
from typing import Any

from ..utils.json_files import read_json
from .checksums import DamagedData
from .source_files import combined_hash

CHECKSUM = "checksum"


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """The content and its checksum."""
    return {**content, CHECKSUM: combined_hash(content)}


def unsealed(content: dict[str, Any], required: bool = False) -> dict[str, Any]:
    """The content without its checksum.

    Args:
        content: The object, as it was read.
        required: Whether a missing checksum is an error; older versions wrote none.

    Raises:
        ValueError: The checksum differs or is missing.
    """
    rest = {name: value for name, value in content.items() if name != CHECKSUM}
    if (required or CHECKSUM in content) and content.get(CHECKSUM) != combined_hash(rest):
        raise ValueError("its checksum differs")
    return rest


def read_sealed(path: str | Path, remedy: str) -> dict[str, Any]:
    """Reads a file that holds one sealed object; returns its content without the checksum.

    Args:
        path: The file.
        remedy: What to do if it is damaged, for the message.

    Raises:
        FileNotFoundError: There is no such file.
        DamagedData: The file differs from what was written.
    """
    try:
        return unsealed(read_json(path, dict, remedy))
    except FileNotFoundError:
        raise
    except ValueError as error:
        raise DamagedData(
            str(error) if str(path) in str(error) else f"{path} is damaged ({error}): {remedy}"
        ) from error

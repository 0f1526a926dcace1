"""One clear message if a model, tokenizer or data set cannot be loaded from a folder or the Hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def loading(name: str | Path, allowed: str = "its folder, or a Hub id such as owner/name") -> Iterator[None]:
    """Turns an error from loading `name` inside the `with` block into one that names it and says what is allowed.

    Without a network, the libraries' own errors neither name the model nor suggest that a path is mistyped.

    Args:
        name: Folder or Hub id.
        allowed: What may be given instead.

    Raises:
        ValueError: `name` does not exist, or cannot be read.
    """
    try:
        yield
    except (OSError, ValueError, RecursionError) as error:  # a folder without a tokenizer raises the second
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if Path(name).exists():
            raise ValueError(f"{name} cannot be loaded: {reason}. Give {allowed}") from error
        if isinstance(error, ValueError):
            raise
        raise ValueError(
            f"{name} does not exist locally, and was not loaded from the Hub or its cache: give {allowed}. "
            f"The Hub's client says: {reason}"
        ) from error

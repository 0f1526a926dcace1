"""Optional dependencies."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_extra(name: str) -> Iterator[None]:
    """Names the extra to install if an import inside the `with` block finds no package.

    Args:
        name: Extra of this package, such as `"downstream"`.

    Raises:
        ImportError: A package is missing; the message holds the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(
            f'{error.name} is not installed: run pip install "vidlankd_hf[{name}]"', name=error.name
        ) from error

"""Optional dependencies."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def requires_extra(name: str) -> Iterator[None]:
    """Turns a failed import inside the `with` block into an error that names the extra to install.

    Args:
        name: Extra of this package, such as `"downstream"`.

    Raises:
        ImportError: A package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(
            f'{error.name} is not installed: install it with pip install "vidlankd_hf[{name}]"', name=error.name
        ) from error

"""Optional dependencies: a missing package names the extra that installs it."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Wraps imports of packages that only an extra installs.

    Args:
        extra: Name of the extra in `setup.py`, such as `"world"`.

    Raises:
        ModuleNotFoundError: A package is missing; the message holds the command that installs it.

    Example:
        >>> with needs_extra("world"):
        ...     from scipy.stats import binomtest
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'this needs {error.name}, which is not installed: run pip install "vidlankd_hf[{extra}]"', name=error.name
        ) from error

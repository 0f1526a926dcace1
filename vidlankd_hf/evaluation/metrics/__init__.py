"""Metrics of the downstream tasks as `evaluate.Metric` modules, one per file, that need no network.

Each file also works with `evaluate.load(path)`, which copies it and therefore needs it to import nothing from this
package. Importing `evaluate` takes seconds, so the files are imported only when a metric is needed.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ...utils.extras import requires_extra

if TYPE_CHECKING:
    import evaluate


def load_metric(name: str, config: str | None = None) -> "evaluate.Metric":
    """Loads a metric, as `evaluate.load` does, but without the Hub.

    Args:
        name: `"accuracy"`, `"f1"`, `"glue"`, `"squad"` or `"tracie"`.
        config: Configuration: a GLUE task such as `"mrpc"`, `"squad_v2"`, or `"by_group"` for accuracy.

    Returns:
        A metric for `compute(predictions=..., references=...)` and `evaluate.combine`.

    Raises:
        ImportError: The extra `downstream` is not installed.
    """
    with requires_extra("downstream"):
        module = import_module(f".{name}", __name__)
    return getattr(module, name.capitalize())(config, keep_in_memory=True)

"""Video files to frozen features: decode in child processes, run the backbones, write shards."""

from importlib import import_module

# Imported when asked for: a decoding child imports this package too, and starts without transformers.
_LAZY = {"Limits": "decoders", "Stream": "streams", "extract_features": "extract"}
__all__ = [*_LAZY]


def __getattr__(name):
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

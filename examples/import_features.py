"""Imports features that another tool extracted: NumPy, HDF5, tar or Parquet.

    vidlankd import-features --output_dir outputs/features \\
        --streams frame=features_2d@1 clip=features_3d.h5@1.5

A stream is name=SOURCE@RATE, with RATE in features per second, or name=SOURCE
if the source has times. SOURCE is a file or a folder of files; SOURCE::ARRAY
names an array, data set or column. Run the command again to continue after an
interruption.
"""

import json
from collections import Counter

from vidlankd_hf.cli import CommandLine, run_example
from vidlankd_hf.extraction.import_features import ImportedStream, import_features
from vidlankd_hf.utils.errors import show_log
from vidlankd_hf.utils.messages import number_of


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--streams", nargs="+", required=True, help="streams, as described above")
    parser.add_argument("--output_dir", required=True, help="folder of the feature shards")
    parser.add_argument("--id_column", default="video", help="column of ids in Parquet and Arrow files")
    parser.add_argument("--max_failed", type=int, default=0, help="videos that may fail before the exit code is 1")
    parser.add_argument("--retry_failed", action="store_true", help="try failed videos again")
    parser.add_argument("--shard_bytes", type=int, default=2**30, help="approximate bytes per shard; default: 1 GiB")
    args = parser.parse()

    show_log()
    streams = [ImportedStream.parse(text) for text in args.streams]
    store = import_features(
        streams, args.output_dir, args.id_column, args.max_failed, args.retry_failed, args.shard_bytes
    )
    parser.save_settings(store.folder)
    for name, what in (("quarantine.jsonl", "video"), ("left_out.jsonl", "file")):
        lines = (store.folder / name).read_text().splitlines() if (store.folder / name).exists() else []
        for reason, count in Counter(json.loads(line)["reason"] for line in lines).items():
            print(f"Left out {number_of(count, what)}: {reason}. {store.folder / name} lists them.")
    hours = sum(map(store.duration, store.video_ids)) / 3600
    print(
        f"Features of {number_of(len(store), 'video')} ({hours:.2f} h), {store.feature_size} values per step, in "
        f"{store.folder}."
    )
    print(f"Next: vidlankd inspect --features {store.folder} --captions CAPTIONS --tokenizer TOKENIZER")


if __name__ == "__main__":
    run_example(main)

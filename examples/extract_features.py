"""Extracts features of videos with frozen vision backbones.

    vidlankd extract --videos my_videos --output_dir outputs/features \\
        --streams frame=microsoft/resnet-152@1 \\
        clip=MCG-NJU/videomae-base-finetuned-kinetics@24x16

A stream is name=model@RATE for pictures and name=model@RATExLENGTH for clips:
24x16 means 16 frames at 24 per second. There may be any number of streams. The
two above are VidLanKD's; --frame_model MODEL --clip_model MODEL is their short
form. `accelerate launch` divides the shards over processes. Run the command
again to make shards that are missing or damaged. Without arguments it uses the
grounded world's videos and backbones, which are made first if they are missing.
"""

from pathlib import Path

import torch
from accelerate import PartialState

from vidlankd_hf.cli import CommandLine, run_example
from vidlankd_hf.experiments.world import build_world
from vidlankd_hf.experiments.world.recipe import WORLD_SEED
from vidlankd_hf.extraction import Limits, Stream, extract_features
from vidlankd_hf.extraction.streams import paper_streams, with_processors
from vidlankd_hf.reliability.launch import requested_launch
from vidlankd_hf.utils.errors import show_log
from vidlankd_hf.utils.messages import number_of

WORLD = Path("outputs/world")
GROUPS = {
    "data": ("videos", "output_dir"),
    "features": ("streams", "frame_model", "clip_model", "processors", "precision", "batch_size", "device"),
    "decoding and shards": (
        "decoders", "max_failed", "retry_failed", "shard_bytes", "stall_seconds", "video_seconds", "decoder_memory",
    ),
}  # fmt: skip


def main() -> None:
    parser = CommandLine(__doc__, groups=GROUPS)
    parser.add_argument("--videos", help="folder, glob pattern or manifest (.jsonl, .parquet); default: the world's")
    parser.add_argument("--output_dir", help="folder of the feature shards; default: next to the world's videos")
    parser.add_argument("--streams", nargs="+", default=[], help="streams, as described above; default: none")
    parser.add_argument("--frame_model", help="short for --streams frame=MODEL@1; default: none")
    parser.add_argument("--clip_model", help="short for --streams clip=MODEL@24x16, with --frame_model; default: none")
    parser.add_argument("--processors", nargs="+", default=[], help="name=FOLDER of a processor; default: the model's")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32", help="backbone precision")
    parser.add_argument("--batch_size", type=int, default=32, help="pictures per forward pass; clips: a quarter")
    parser.add_argument("--device", help="device of the backbones; default: a GPU if there is one")
    parser.add_argument("--decoders", type=int, help="decoding processes; default: one per core, at most 8")
    parser.add_argument("--max_failed", type=int, default=0, help="videos that may fail before the exit code is 1")
    parser.add_argument("--retry_failed", action="store_true", help="try failed videos again")
    parser.add_argument("--shard_bytes", type=int, default=2**30, help="approximate bytes per shard; default: 1 GiB")
    parser.add_argument("--stall_seconds", type=float, default=60, help="seconds without a frame until a video fails")
    parser.add_argument("--video_seconds", type=float, default=4 * 3600, help="a video fails after this decoding time")
    parser.add_argument("--decoder_memory", type=int, default=4 * 2**30, help="bytes per decoder; default: 4 GiB")
    args = parser.parse()

    if args.videos is None:
        if not (WORLD / "world.json").is_file():
            print(f"{WORLD}/world.json is missing: making it now")
            build_world(WORLD, seed=WORLD_SEED)
        args.videos = str(WORLD / "videos")
        args.output_dir = args.output_dir or str(WORLD / "features")
        if not (args.streams or args.frame_model or args.clip_model):
            args.frame_model, args.clip_model = (str(WORLD / "backbones" / kind) for kind in ("frame", "clip"))
    if args.clip_model is not None and args.frame_model is None:
        parser.error("--clip_model needs --frame_model; for clips only, write --streams clip=MODEL@24x16")
    if args.output_dir is None or not (args.streams or args.frame_model):
        parser.error("--videos needs --output_dir and --streams (or --frame_model)")

    # Only the log of this package: the Hub's client shows its warnings itself.
    show_log()
    on_gpu = torch.cuda.is_available() and args.device != "cpu"
    state = PartialState(cpu=not on_gpu)
    processes, _ = requested_launch()
    if processes not in (None, state.num_processes):
        parser.error(
            f"{processes} processes were requested, but this run has {state.num_processes}: on CPU use torchrun"
        )
    streams = paper_streams(args.frame_model, args.clip_model) if args.frame_model else []
    streams = with_processors(streams + [*map(Stream.parse, args.streams)], args.processors)
    store = extract_features(
        args.videos, args.output_dir, streams, args.precision, args.batch_size, args.decoders,
        args.device or state.device, args.max_failed, args.retry_failed, args.shard_bytes,
        Limits(args.stall_seconds, args.video_seconds, args.decoder_memory),
        state.process_index, state.num_processes,
    )  # fmt: skip
    state.destroy_process_group()
    if store is None:
        print(f"This process has made its shards in {args.output_dir}; other processes are still working.")
        return
    parser.save_settings(store.folder)
    hours = sum(map(store.duration, store.video_ids)) / 3600
    videos = number_of(len(store), "video")
    print(f"Features of {videos} ({hours:.2f} h), {store.feature_size} values per step, in {store.folder}.")
    folder = args.videos if Path(args.videos).is_dir() else "VIDEOS"
    given = f"--features {store.folder} --videos {folder}"
    print(f"Next: vidlankd inspect {given} --captions CAPTIONS --tokenizer TOKENIZER")


if __name__ == "__main__":
    run_example(main)

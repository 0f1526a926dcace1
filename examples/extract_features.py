"""Extracts frozen features of videos: 1 picture a second and, with a clip model, 1.5 clips of 16 frames a second.

    python examples/extract_features.py --videos my_videos \\
        --output_dir outputs/features --frame_model microsoft/resnet-152 \\
        --clip_model MCG-NJU/videomae-base-finetuned-kinetics

Without arguments: the grounded world's videos and backbones, which are made first where they are missing.
"""

from pathlib import Path

from vidlankd_hf.command_line import CommandLine
from vidlankd_hf.extraction import extract_features
from vidlankd_hf.world import build_world
from vidlankd_hf.world.recipe import WORLD_SEED

WORLD = Path("outputs/world")


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--videos", help="a folder or a glob pattern; default: the grounded world's videos")
    parser.add_argument("--output_dir", help="of the feature shards; default: beside the world's videos")
    parser.add_argument("--frame_model", help="vision backbone, Hub id or folder; default: the world's ResNet")
    parser.add_argument("--clip_model", help="16-frame video backbone; default: none, for the world its VideoMAE")
    parser.add_argument("--batch_size", type=int, default=32, help="pictures a forward pass (clips: a quarter)")
    parser.add_argument("--device", help="default: a GPU where there is one")
    args = parser.parse()

    if args.videos is None:
        if not (WORLD / "world.json").is_file():
            print(f"No --videos given: the grounded world is used, and built in {WORLD}, since it is not there.")
            build_world(WORLD, seed=WORLD_SEED)
        args.videos = str(WORLD / "videos")
        args.output_dir = args.output_dir or str(WORLD / "features")
        args.frame_model = args.frame_model or str(WORLD / "backbones" / "frame")
        args.clip_model = args.clip_model or str(WORLD / "backbones" / "clip")
    elif args.output_dir is None or args.frame_model is None:
        parser.error("--videos needs --output_dir and --frame_model beside it")

    store = extract_features(**vars(args))
    parser.save_settings(store.folder)
    hours = sum(map(store.duration, store.video_ids)) / 3600
    print(f"Features of {len(store)} videos ({hours:.2f} h), {store.feature_size} values a step, in {store.folder}.")
    features = f"--features {store.folder} --captions CAPTIONS.jsonl --tokenizer TOKENIZER"
    print(f"Next: accelerate launch examples/pretrain_teacher.py {features}")


if __name__ == "__main__":
    main()

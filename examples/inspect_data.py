"""Looks at captioned video before a teacher is trained on it.

    python examples/inspect_data.py --features outputs/features \\
        --captions my_subtitles --tokenizer bert-base-uncased \\
        --videos my_videos --text my_text.txt --output_dir outputs/look

Prints counts, durations, clip lengths, the share of time with captions and how the vocabulary grows beside that of
a text corpus, and writes into --output_dir: contact_sheet.png and contact_sheet.html (random clips with captions; with
--videos), summary.json, and unpaired.jsonl, which lists all captions and videos without a counterpart. Without
arguments: the grounded world.
"""

import json
from pathlib import Path

from transformers import AutoTokenizer
from transformers.hf_argparser import string_to_bool

from vidlankd_hf import load_video_text
from vidlankd_hf.cli import CommandLine
from vidlankd_hf.data.caption_formats import READERS
from vidlankd_hf.data.captions import read_captions
from vidlankd_hf.data.features import FeatureStore
from vidlankd_hf.data.pairing import pair_captions
from vidlankd_hf.data.text_blocks import load_text
from vidlankd_hf.experiments.world.recipe import LENGTH
from vidlankd_hf.inspection.contact_sheet import histogram_rows, table_of, write_page, write_picture
from vidlankd_hf.inspection.inspect import sample_clips, size_at, summarize, vocabulary_growth
from vidlankd_hf.utils.io import atomic_write


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--features", help="folder that extract_features.py wrote; default: the world's")
    parser.add_argument("--captions", help="file of captions or folder of subtitles; default: the world's")
    parser.add_argument("--tokenizer", help="of the teacher, Hub id or folder; default: the world's")
    parser.add_argument("--videos", help="folder of the video files, for the contact sheet; default: the world's")
    parser.add_argument("--text", help="corpus to compare the vocabulary with, as for distill.py")
    parser.add_argument("--caption_format", choices=list(READERS), help="default: found from suffix and content")
    parser.add_argument(
        "--remove_overlap",
        type=string_to_bool,
        help="whether text that rolls is read once; default: for YouTube's speech and HowTo100M",
    )
    parser.add_argument("--max_length", type=int, help="tokens of a window; default: 128, for the world 32")
    parser.add_argument("--num_clips", type=int, default=16, help="on the contact sheet")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of clips")
    parser.add_argument("--world", default="outputs/world", help="used without --features")
    parser.add_argument("--output_dir", default="outputs/look", help="new folder of the pictures and tables")
    args = parser.parse()
    length = 128
    if args.features is None:
        world, length = Path(args.world), LENGTH
        if not (world / "world.json").exists():
            parser.error(f"{world} holds no world: make it with examples/make_world.py, or give --features")
        args.features, args.captions = world / "features", args.captions or world / "captions.jsonl"
        args.tokenizer, args.videos = args.tokenizer or world / "tokenizer", args.videos or world / "videos"
        args.text = args.text or str(world / "text")
    elif not args.captions or not args.tokenizer:
        parser.error("--features needs --captions and --tokenizer beside it")
    if args.num_clips < 1:
        parser.error(f"--num_clips is {args.num_clips}: give 1 or more")
    folder = Path(args.output_dir)
    if folder.exists() and any(folder.iterdir()):
        parser.error(f"{folder} is not empty: choose another --output_dir, or remove it")

    text = load_text(args.text)["text"] if args.text else None
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    store = FeatureStore(args.features)
    captions = read_captions(args.captions, args.caption_format, args.remove_overlap)
    pairs = pair_captions(store, captions)
    folder.mkdir(parents=True, exist_ok=True)
    pairs.unpaired.write(folder / "unpaired.jsonl")
    dataset = load_video_text(
        args.features,
        args.captions,
        tokenizer,
        max_length=args.max_length or length,
        max_unpaired=1.0,
        caption_format=args.caption_format,
        remove_overlap=args.remove_overlap,
    )
    summary = summarize(store, pairs, dataset)
    for name, value in table_of(summary):
        print(f"{name:30}{value}")
    rows = histogram_rows(summary)
    print("\nClip lengths")
    for name, count in rows:
        print(f"{name:>14} {'#' * round(50 * count / max(n for _, n in rows)):50} {count:,}")

    growth = {"captions": vocabulary_growth([caption.text for caption in captions])}
    if text is not None:
        growth["text"] = vocabulary_growth(text)
    print("\nVocabulary")
    for name, points in growth.items():
        print(f"{name:30}{points[-1][1]:,} different words of {points[-1][0]:,}")
    if text is not None:
        words = min(points[-1][0] for points in growth.values())
        sizes = [size_at(points, words) for points in growth.values()]
        print(f"Among {words:,} words of each: {sizes[0]:,.0f} in the captions, {sizes[1]:,.0f} in the text.")
        summary["vocabulary_among"] = {"words": words, **dict(zip(growth, sizes))}

    atomic_write(folder / "summary.json", json.dumps({**summary, "vocabulary": growth}, indent=2) + "\n")
    clips = sample_clips(dataset, args.videos, args.num_clips, seed=args.seed) if args.videos else []
    if clips:
        write_picture(folder / "contact_sheet.png", clips)
    write_page(folder / "contact_sheet.html", f"Captioned video: {args.features}", summary, clips, growth)
    parser.save_settings(folder)
    print(f"\nIn {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}.")
    problems = pairs.unpaired.problems(args.features, args.captions)
    if problems:
        print("To train without them, give --max_unpaired. " + ". ".join(problems) + ".")
    data = f"--features {args.features} --captions {args.captions} --tokenizer {args.tokenizer}"
    print(f"Next: accelerate launch examples/pretrain_teacher.py {data}")


if __name__ == "__main__":
    main()

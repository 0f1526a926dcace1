"""Summarizes and shows captioned video before a teacher is trained on it.

    vidlankd inspect --features outputs/features --captions my_subtitles \\
        --tokenizer google-bert/bert-base-uncased --videos my_videos \\
        --text my_text.txt --output_dir outputs/look

Prints counts, durations, clip lengths, the share of time with captions, and the
vocabulary compared with that of a text corpus. Writes into --output_dir:
contact_sheet.png and contact_sheet.html (random clips with captions, if
--videos is given), summary.json, unpaired.jsonl (captions and videos without a
counterpart), and left_out.jsonl. With --teacher, also alignment.png and
alignment.json: how well captions fit the video some seconds before and after
them, which reveals shifted subtitles. Ends with an account of what was read,
what is used, and what is left out and why. Without arguments it shows the
grounded world.
"""

import json
from pathlib import Path

from vidlankd_hf.cli import CommandLine, run_example
from vidlankd_hf.data.account import Account
from vidlankd_hf.data.captions import read_captions
from vidlankd_hf.data.features import FeatureStore
from vidlankd_hf.data.pairing import pair_captions
from vidlankd_hf.data.text_blocks import load_text
from vidlankd_hf.data.vocabulary import load_tokenizer
from vidlankd_hf.experiments.world.bootstrap import use_existing_world
from vidlankd_hf.inspection.accounting import account_lines, close_account
from vidlankd_hf.inspection.alignment import load_encoders, measure_alignment, write_alignment
from vidlankd_hf.inspection.contact_sheet import histogram_rows, summary_rows, write_image, write_page
from vidlankd_hf.inspection.inspect import sample_clips, summarize, vocabulary_growth, vocabulary_size_at
from vidlankd_hf.inspection.script_arguments import InspectionArguments, teacher_options
from vidlankd_hf.utils.io import atomic_write


def main() -> None:
    parser = CommandLine(__doc__, InspectionArguments)
    (args,) = parser.parse()
    if args.features is None:
        use_existing_world(args, parser, "--features")
    elif not args.captions or not args.tokenizer:
        parser.error("--features needs --captions and --tokenizer: give all three")
    if args.num_clips < 1:
        parser.error(f"--num_clips is {args.num_clips}: give 1 or more")
    folder = Path(args.output_dir)
    if folder.exists() and any(folder.iterdir()):
        parser.error(f"{folder} is not empty: choose another --output_dir, or remove it")

    encoders = load_encoders(args.teacher) if args.teacher else None
    text = load_text(args.text)["text"] if args.text else None
    tokenizer = load_tokenizer(args.tokenizer)
    store = FeatureStore(args.features)
    account = Account()
    captions = read_captions(
        args.captions, args.caption_format, args.remove_overlap, args.caption_encoding, account, args.caption_columns
    )
    pairs = pair_captions(store, captions)
    close_account(account, store, pairs)
    folder.mkdir(parents=True, exist_ok=True)
    pairs.unpaired.write(folder / "unpaired.jsonl")
    account.write(folder / "left_out.jsonl")
    dataset = args.load(tokenizer, args.max_length or 128, max_unpaired=1.0)
    summary = summarize(store, pairs, dataset)
    for name, value in summary_rows(summary):
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
        sizes = [vocabulary_size_at(points, words) for points in growth.values()]
        print(f"Among {words:,} words of each: {sizes[0]:,.0f} in the captions, {sizes[1]:,.0f} in the text.")
        summary["vocabulary_among"] = {"words": words, **dict(zip(growth, sizes))}

    summary["account"] = account.summary()
    atomic_write(folder / "summary.json", json.dumps({**summary, "vocabulary": growth}, indent=2) + "\n")
    if encoders:
        alignment = measure_alignment(encoders, args.features, args.streams, pairs, args.max_length or 128, args.seed)
        write_alignment(alignment, folder)
        print(f"\n{alignment['sentence']}")
    clips = sample_clips(dataset, args.videos, args.num_clips, seed=args.seed) if args.videos else []
    if clips:
        write_image(folder / "contact_sheet.png", clips)
    write_page(folder / "contact_sheet.html", f"Captioned video: {args.features}", summary, clips, growth)
    parser.save_settings(folder)
    print(f"\nIn {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}.")
    print("\nAccount (left_out.jsonl names everything that was left out)")
    print("\n".join(account_lines(account)))
    problems = pairs.unpaired.problems(args.features, args.captions)
    if problems:
        print("To train without them, give --max_unpaired. " + ". ".join(problems) + ".")
    print(f"Next: vidlankd teacher {teacher_options(args, parser.settings, pairs.unpaired.share)}")


if __name__ == "__main__":
    run_example(main)

"""Makes a page that shows which video clips the words of a sentence point to.

    vidlankd ground --sentences "there is a lijux" "she needs the lijux again"

The page has teacher and student next to each other; pictures are written too.
Without arguments it uses the grounded world, outputs/teacher, outputs/student
and three held-out sentences. The student needs its saved distillation head.
"""

from pathlib import Path

from transformers import AutoConfig

from vidlankd_hf import load_teacher, student_class
from vidlankd_hf.cli import CommandLine, run_example
from vidlankd_hf.data.vocabulary import check_same_vocabulary, load_tokenizer
from vidlankd_hf.evaluation.grounding import check_video_encoder, encode_clips, ground
from vidlankd_hf.evaluation.grounding_page import write_heat_picture, write_nearest_picture, write_page
from vidlankd_hf.evaluation.grounding_text import check_same_teacher, describe
from vidlankd_hf.evaluation.script_arguments import GroundingArguments
from vidlankd_hf.experiments.world.bootstrap import use_existing_world
from vidlankd_hf.models.teacher import check_path
from vidlankd_hf.utils.messages import number_of

GROUPS = {
    "what to show": ("sentences", "num_nearest", "heat_clip", "window", "output_dir"),
    "models": ("teacher", "student", "no_student", "objective", "batch_size"),
    "clips": ("world", "features", "streams", "captions", "videos", "max_length", "max_unpaired", "caption_format",
              "caption_encoding", "caption_columns", "remove_overlap", "streaming", "num_clips", "cache_dir"),
}  # fmt: skip


def main() -> None:
    parser = CommandLine(__doc__, GroundingArguments, GROUPS)
    (args,) = parser.parse()
    check(args, parser)
    if args.features is None:
        use_existing_world(args, parser, "--features")
        held_out = Path(args.world, "text", "validation.txt").read_text(encoding="utf-8").splitlines()
        args.sentences = args.sentences or held_out[:3]
    folder = Path(args.output_dir)

    tokenizer, teacher, student = load_tokenizer(args.teacher), load_teacher(args.teacher), None
    check_video_encoder(teacher)
    if not args.no_student:
        check_same_vocabulary(tokenizer, load_tokenizer(args.student))
        model_type = AutoConfig.from_pretrained(args.student, trust_remote_code=False).model_type
        student = student_class(model_type).from_pretrained(args.student, trust_remote_code=False)
        check_same_teacher(args.student, args.teacher)
    clips = args.load_clips(tokenizer)
    ids = clips.with_format(None)["id"]
    if args.heat_clip is not None and args.heat_clip not in ids:
        parser.error(f"there is no clip {args.heat_clip!r}: clips have ids such as {ids[0]!r}")
    options = {
        "bank": encode_clips(teacher, tokenizer, clips, batch_size=args.batch_size),
        "student": student,
        "objective": args.objective,
        "num_nearest": min(args.num_nearest, len(clips)),
        "heat_clip": None if args.heat_clip is None else list(ids).index(args.heat_clip),
        "window": args.window,
        "batch_size": args.batch_size,
    }
    found = [ground(sentence, teacher, tokenizer, clips, **options) for sentence in args.sentences]

    folder.mkdir(parents=True, exist_ok=True)
    parser.save_settings(folder)
    write_page(folder / "grounding.html", "What the words point to", found, clips, args.videos)
    for number, grounding in enumerate(found, 1):
        write_nearest_picture(folder / f"nearest-{number}.png", grounding, clips, args.videos)
        write_heat_picture(folder / f"heat-{number}.png", grounding, clips, args.videos)
        print(describe(grounding, ids))
    if student is not None and found[0].student is None:
        print(f"\n{found[0].without_student}")
    if args.videos is None:
        print("\nThe clips have no pictures: to see them, give the folder of the videos with --videos.")
    print(
        f"\n{number_of(len(found), 'sentence')} over {number_of(len(clips), 'clip')}: a page and pictures in {folder}."
    )
    print(f"Next: open {folder / 'grounding.html'} in a browser; it needs no network.")


def check(args: GroundingArguments, parser: CommandLine) -> None:
    """Ends the script with a message if an option is missing or wrong."""
    for name in ("num_nearest", "num_clips", "window", "batch_size"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} is {getattr(args, name)}: give 1 or more")
    if args.features and not (args.captions and args.sentences):
        parser.error("--features needs --captions and --sentences: give all three")
    for name, command in (("teacher", "teacher"), ("student", "distill")):
        path, needed = getattr(args, name), name == "teacher" or not args.no_student
        if needed and path == f"outputs/{name}" and not Path(path).exists():
            rest = ", or --no_student" if name == "student" else ""
            parser.error(f"{path} does not exist: make it with `vidlankd {command}`, or give --{name}{rest}")
        if needed:
            check_path(path, f"a {name}")
    if Path(args.output_dir).exists() and any(Path(args.output_dir).iterdir()):
        parser.error(f"{args.output_dir} is not empty: choose another --output_dir, or remove it")


if __name__ == "__main__":
    run_example(main)

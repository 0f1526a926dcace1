"""Shows which video clips the words of a sentence point to, in the teacher and in the student, as a page and pictures.

    python examples/ground.py \\
        --sentences "there is a lijux" "she needs the lijux again"

Without arguments: the grounded world, outputs/teacher, outputs/student and three held-out sentences. The student is
read through the distillation head that was saved beside it.
"""

from pathlib import Path

from transformers import AutoConfig, AutoTokenizer
from transformers.hf_argparser import string_to_bool

from vidlankd_hf import load_teacher, load_video_text, student_class
from vidlankd_hf.cli import CommandLine
from vidlankd_hf.data.caption_formats import READERS
from vidlankd_hf.data.vocabulary import check_same_vocabulary
from vidlankd_hf.evaluation.grounding import ALIGNED, check_video_encoder, encode_clips, ground
from vidlankd_hf.evaluation.grounding_page import write_heat_picture, write_nearest_picture, write_page
from vidlankd_hf.experiments.world.recipe import LENGTH
from vidlankd_hf.reliability.run_dir import RUN_FILE, file_fingerprint, read_settings

GROUPS = {
    "what to show": ("sentences", "num_nearest", "heat_clip", "window", "output_dir"),
    "models": ("teacher", "student", "no_student", "objective", "batch_size"),
    "clips": ("world", "features", "streams", "captions", "videos", "max_length", "max_unpaired", "caption_format",
              "remove_overlap"),
}  # fmt: skip


def main() -> None:
    parser = CommandLine(__doc__, groups=GROUPS)
    parser.add_argument("--sentences", nargs="+", help="default: three that the world's student has not read")
    parser.add_argument("--teacher", default="outputs/teacher", help="trained by contrast")
    parser.add_argument("--student", default="outputs/student", help="with its heads")
    parser.add_argument("--no_student", action="store_true", help="the teacher alone")
    parser.add_argument("--objective", help=f"whose head is used; default: the first of {', '.join(ALIGNED)} it has")
    parser.add_argument("--features", help="folder that extract_features.py wrote; default: the world's")
    parser.add_argument("--captions", help="of these videos; default: the world's")
    parser.add_argument("--videos", help="folder of the video files, for the frames; default: the world's")
    parser.add_argument("--max_unpaired", type=float, default=0.0, help="as for pretrain_teacher.py")
    parser.add_argument("--caption_format", choices=list(READERS), help="default: found from suffix and content")
    parser.add_argument(
        "--remove_overlap",
        type=string_to_bool,
        help="whether text that rolls is read once; default: for YouTube's speech and HowTo100M",
    )
    parser.add_argument("--streams", nargs="+", help="the feature streams that the teacher was trained with")
    parser.add_argument("--max_length", type=int, help="tokens of a clip's window; default: 128, for the world 32")
    parser.add_argument("--num_nearest", type=int, default=6, help="clips for each token")
    parser.add_argument("--heat_clip", help="id of the heat map's clip; default: nearest to the sentence")
    parser.add_argument("--window", type=int, default=1, help="steps seen at each time of it")
    parser.add_argument("--world", default="outputs/world", help="used without --features")
    parser.add_argument("--output_dir", default="outputs/grounding", help="is made")
    parser.add_argument("--batch_size", type=int, default=64, help="clips at a time")
    args = parser.parse()
    for name in ("num_nearest", "window", "batch_size"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} is {getattr(args, name)}: give 1 or more")
    length = 128
    if args.features is None:
        world, length = Path(args.world), LENGTH
        if not (world / "world.json").exists():
            parser.error(f"{world} holds no world: make it with python examples/make_world.py, or give --features")
        args.features = world / "features"
        args.captions = args.captions or world / "captions.jsonl"
        args.videos = args.videos or world / "videos"
        held_out = (world / "text" / "validation.txt").read_text(encoding="utf-8").splitlines()
        args.sentences = args.sentences or held_out[:3]
    elif not args.captions or not args.sentences:
        parser.error("--features needs --captions and --sentences beside it")
    for what, path in (("teacher", args.teacher), ("student", args.student)):
        if (
            path == parser.get_default(what)
            and not Path(path).exists()
            and not (what == "student" and args.no_student)
        ):
            script = "pretrain_teacher.py" if what == "teacher" else "distill.py"
            rest = ", or --no_student" if what == "student" else ""
            parser.error(
                f"{path} does not exist: make it with accelerate launch examples/{script}, or give --{what}{rest}"
            )
    folder = Path(args.output_dir)
    if folder.exists() and any(folder.iterdir()):
        parser.error(f"{folder} is not empty: choose another --output_dir, or remove it")

    tokenizer = AutoTokenizer.from_pretrained(args.teacher)
    teacher, student = load_teacher(args.teacher), None
    check_video_encoder(teacher)
    if not args.no_student:
        check_same_vocabulary(tokenizer, AutoTokenizer.from_pretrained(args.student))
        student = student_class(AutoConfig.from_pretrained(args.student).model_type).from_pretrained(args.student)
        check_same_teacher(args.student, args.teacher)
    clips = load_video_text(
        args.features,
        args.captions,
        tokenizer,
        max_length=args.max_length or length,
        streams=args.streams,
        max_unpaired=args.max_unpaired,
        caption_format=args.caption_format,
        remove_overlap=args.remove_overlap,
    )
    ids = clips.with_format(None)["id"]
    if args.heat_clip is not None and args.heat_clip not in ids:
        parser.error(f"there is no clip {args.heat_clip!r}: clips have ids such as {ids[0]!r}")
    bank = encode_clips(teacher, tokenizer, clips, batch_size=args.batch_size)
    found = [
        ground(
            sentence,
            teacher,
            tokenizer,
            clips,
            bank,
            student=student,
            objective=args.objective,
            num_nearest=min(args.num_nearest, len(clips)),
            heat_clip=None if args.heat_clip is None else list(ids).index(args.heat_clip),
            window=args.window,
            batch_size=args.batch_size,
        )
        for sentence in args.sentences
    ]

    folder.mkdir(parents=True, exist_ok=True)
    parser.save_settings(folder)
    write_page(folder / "grounding.html", "What the words point to", found, clips, args.videos)
    for number, grounding in enumerate(found, 1):
        write_nearest_picture(folder / f"nearest-{number}.png", grounding, clips, args.videos)
        write_heat_picture(folder / f"heat-{number}.png", grounding, clips, args.videos)
    for grounding in found:
        print(f"\n{grounding.sentence}")
        for name in ("teacher", "student"):
            scores = getattr(grounding, name)
            if scores is not None:
                deviations = scores.deviations(scores.similarity)[:, 0]
                token = int(deviations.argmax())
                print(
                    f"  {name}: {grounding.tokens[token]!r} is nearest to {ids[int(scores.nearest[token, 0])]}, "
                    f"cosine {scores.similarity[token, 0]:.2f}, {deviations[token]:+.1f} standard deviations"
                )
    if student is not None and found[0].student is None:
        print(f"\n{found[0].without_student}")
    print(
        f"\n{len(found)} sentences over {len(clips)} clips are in {folder}: grounding.html is the page, nearest-*.png "
        "and heat-*.png are the pictures.\n"
        f"Next: open {folder / 'grounding.html'} in a browser; it needs no network and may be sent to anyone."
    )


def check_same_teacher(student: str, teacher: str) -> None:
    """Raises a `ValueError` if the student's run says that it learned from another teacher than this one."""
    if not (Path(student) / RUN_FILE).is_file():
        return
    learned_from = read_settings(student).get("fingerprints", {}).get("teacher")
    given = file_fingerprint(Path(teacher) / "model.safetensors")
    if None not in (learned_from, given) and learned_from != given:
        raise ValueError(
            f"{student} learned from another teacher ({read_settings(student)['teacher']}) than {teacher}: its head "
            "knows that one's space alone; give --teacher, or --no_student"
        )


if __name__ == "__main__":
    main()

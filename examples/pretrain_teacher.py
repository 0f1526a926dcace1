"""Trains a VidLanKD teacher on captioned video.

Without arguments: on the grounded world below outputs/, which is made first if it is missing.
With your own data: --features (from extract_features.py), --captions (jsonl, a folder of subtitles, a published data
set's file) and --tokenizer; look at it first with inspect_data.py.
"""

from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

from transformers import AutoTokenizer, set_seed

from vidlankd_hf import (
    TeacherConfig,
    TeacherTrainer,
    VidLanKDTeacher,
    VidLanKDTeacherConfig,
    bert_config,
    load_video_text,
)
from vidlankd_hf.cli import OUTPUT, TRAINING, CommandLine, also_of_the_world
from vidlankd_hf.data.caption_formats import READERS
from vidlankd_hf.data.features import FeatureStore
from vidlankd_hf.data.video_text import split_by_video
from vidlankd_hf.experiments.world.recipe import TEACHER_RECIPE, WORLD_SEED
from vidlankd_hf.models.configuration import CONTRASTS, SIZES, TEACHER_LOSSES
from vidlankd_hf.models.teacher import video_config_like
from vidlankd_hf.reliability.launch import describe_launch, end_run
from vidlankd_hf.reliability.run_dir import log_on_main, mark_finished, open_run_dir, run_script_if_missing

GROUPS = {
    "data": ("features", "captions", "tokenizer", "caption_format", "remove_overlap", "max_unpaired", "fixed_windows",
             "streams", "max_length", "max_video_length", "held_out_videos", "shuffle_videos", "world"),
    "model": ("text_model", "joint_size"),
    "objectives": ("losses", "contrast", "margin", "mlm_probability"),
    "training": (*TRAINING, "matmul_precision"),
    "output": ("output_dir", *OUTPUT, "preempt_exit_code", "hang_timeout"),
}  # fmt: skip


@dataclass
class DataArguments:
    features: str | None = field(
        default=None, metadata={"help": "Folder that extract_features.py wrote; default: the world's."}
    )
    captions: str | None = field(
        default=None,
        metadata={"help": "File of captions or folder of subtitles (docs/data.md); default: the world's."},
    )
    caption_format: str | None = field(
        default=None, metadata={"help": f"One of {', '.join(READERS)}; default: found from suffix and content."}
    )
    remove_overlap: bool | None = field(
        default=None,
        metadata={"help": "Whether text that rolls is read once; default: for YouTube's speech and HowTo100M."},
    )
    max_unpaired: float = field(
        default=0.0,
        metadata={"help": "Share of captions without video, or of videos without captions, that may be left out."},
    )
    fixed_windows: bool = field(
        default=False, metadata={"help": "The same windows in every epoch; default: they start at other lines."}
    )
    streaming: bool = field(
        default=False,
        metadata={"help": "Read shard by shard, in memory that does not depend on how much data there are."},
    )
    cache_dir: str = field(
        default="outputs/cache", metadata={"help": "With --streaming: where the divided captions are kept."}
    )
    tokenizer: str | None = field(
        default=None, metadata={"help": "Hub id or folder of a BERT tokenizer; default: the world's."}
    )
    world: str = field(
        default="outputs/world", metadata={"help": "Grounded world, used where --features is not given."}
    )
    text_model: str = field(
        default="small",
        metadata={
            "help": f"Size of a new text encoder ({', '.join(SIZES)}), or Hub id or folder of a BERT to start from."
        },
    )
    contrast: str = field(
        default="infonce", metadata={"help": f"One of {', '.join(CONTRASTS)}; hinge is the paper's."}
    )
    losses: str = field(
        default="contrast+mlm",
        metadata={"help": f"One of {', '.join(TEACHER_LOSSES)}; mlm is a control that reads the captions alone."},
    )
    margin: float = field(default=1.0, metadata={"help": "Margin of the hinges; the paper's 1, a vokenizer's 0.5."})
    joint_size: int | None = field(
        default=None, metadata={"help": "Compare tokens and clips in a space of this width; a vokenizer's is 64."}
    )
    streams: list[str] | None = field(
        default=None,
        metadata={"help": "Feature streams to see, such as frame; default: all. With --max_video_length 1: images."},
    )
    held_out_videos: float = field(default=0.05, metadata={"help": "Share of the videos kept for evaluation."})
    shuffle_videos: bool = field(
        default=False, metadata={"help": "Control: pair every video's captions with another video's clips."}
    )


def main() -> None:
    types = (TeacherConfig, DataArguments)
    parser = CommandLine(__doc__, types, GROUPS, defaults=also_of_the_world(TEACHER_RECIPE))
    args, data_args = parser.parse(recipe=lambda given: TEACHER_RECIPE if given.features is None else {})
    log_on_main(args, f"Teacher: {describe_launch(args)}.")
    if data_args.features is None:
        world, make_world = Path(data_args.world), Path(__file__).with_name("make_world.py")
        arguments = ["--output_dir", str(world), "--seed", str(WORLD_SEED)]
        run_script_if_missing(args, world / "world.json", "The grounded world", make_world, *arguments)
        data_args.features = str(world / "features")
        data_args.captions = data_args.captions or str(world / "captions.jsonl")
        data_args.tokenizer = data_args.tokenizer or str(world / "tokenizer")
    elif not data_args.captions or not data_args.tokenizer:
        raise ValueError("--features needs --captions and --tokenizer beside it")
    checkpoint = open_run_dir(args, asdict(data_args))
    if args.process_index == 0:
        parser.save_settings(args.output_dir)

    set_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(data_args.tokenizer)
    with args.main_process_first(local=False) if data_args.streaming else nullcontext():
        dataset = load_video_text(
            data_args.features,
            data_args.captions,
            tokenizer,
            max_length=args.max_length,
            shuffle_videos_seed=args.seed if data_args.shuffle_videos else None,
            streams=data_args.streams,
            seed=None if data_args.fixed_windows else args.seed,
            max_unpaired=data_args.max_unpaired,
            caption_format=data_args.caption_format,
            remove_overlap=data_args.remove_overlap,
            streaming=data_args.streaming,
            cache_dir=data_args.cache_dir,
        )
    train, held_out = split_by_video(dataset, data_args.held_out_videos)
    store = FeatureStore(data_args.features, data_args.streams)
    feature_size = store.feature_size
    design = {name: getattr(data_args, name) for name in ("losses", "contrast", "margin", "joint_size")}
    if data_args.text_model in SIZES:
        text = bert_config(data_args.text_model, tokenizer)
        video = video_config_like(text, feature_size)
        teacher = VidLanKDTeacher(VidLanKDTeacherConfig(text_config=text, video_config=video, **design))
    else:
        teacher = VidLanKDTeacher.from_text_pretrained(data_args.text_model, feature_size, **design)
    if teacher.video_encoder is not None:
        teacher.set_feature_statistics(*store.statistics())
    del store  # which holds the index of all videos

    trainer = TeacherTrainer(
        model=teacher, args=args, train_dataset=train, eval_dataset=held_out, processing_class=tokenizer
    )
    log_on_main(args, f"{len(train)} windows to train on, {len(held_out)} of other videos to evaluate on.")
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.evaluate()
    trainer.save_model()
    trainer.save_state()
    mark_finished(args)
    next_command = f"accelerate launch examples/distill.py --teacher {args.output_dir}"
    log_on_main(args, f"The teacher is in {args.output_dir}. Next: {next_command}")
    end_run(trainer)


if __name__ == "__main__":
    main()

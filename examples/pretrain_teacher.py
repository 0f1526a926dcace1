"""Trains a VidLanKD teacher on captioned video.

Without arguments it uses the grounded world in outputs/, which is made first
if it is missing. With your own data, give --features (from `vidlankd extract`),
--captions (a file, a folder of subtitles, or a Hub data set) and --tokenizer.
Look at the data first with `vidlankd inspect`.
"""

from dataclasses import asdict

from transformers import set_seed

from vidlankd_hf import TeacherConfig, TeacherTrainer
from vidlankd_hf.cli import CommandLine, run_example
from vidlankd_hf.data.features import FeatureStore
from vidlankd_hf.data.video_text import split_by_video
from vidlankd_hf.data.vocabulary import load_tokenizer
from vidlankd_hf.experiments.world import bootstrap
from vidlankd_hf.experiments.world.recipe import TEACHER_RECIPE, in_help
from vidlankd_hf.models.attention import set_attention
from vidlankd_hf.reliability.launch import describe_launch, end_run
from vidlankd_hf.reliability.run_dir import log_on_main, open_run_dir
from vidlankd_hf.training.build import build_teacher, evaluate_and_save
from vidlankd_hf.training.script_arguments import OUTPUT, PRETRAINING, TeacherArguments
from vidlankd_hf.utils.messages import number_of

GROUPS = {
    "data": ("features", "captions", "tokenizer", "caption_format", "caption_encoding", "caption_columns",
             "remove_overlap", "max_unpaired", "fixed_windows", "streams", "max_length", "max_video_length",
             "held_out_videos", "shuffle_videos", "world"),
    "model": ("text_model", "joint_size", "attn_implementation"),
    "objectives": ("losses", "contrast", "mil_candidates", "margin", "mlm_probability"),
    "training": PRETRAINING,
    "output": OUTPUT,
}  # fmt: skip


def main() -> None:
    parser = CommandLine(__doc__, (TeacherConfig, TeacherArguments), GROUPS, in_help(TEACHER_RECIPE))
    args, own = parser.parse(recipe=lambda given: TEACHER_RECIPE if given.features is None else {})
    log_on_main(args, f"Teacher: {describe_launch(args)}.")
    on_world = own.features is None
    if on_world:
        bootstrap.use_world(own)
    elif not own.captions or not own.tokenizer:
        raise ValueError("--features needs --captions and --tokenizer: give all three")
    checkpoint = open_run_dir(args, asdict(own))
    if args.process_index == 0:
        parser.save_settings(args.output_dir)

    set_seed(args.seed)
    tokenizer = load_tokenizer(own.tokenizer)
    dataset = own.load(
        tokenizer,
        args.max_length,
        max_unpaired=own.max_unpaired,
        streams=own.streams,
        shuffle_videos_seed=args.seed if own.shuffle_videos else None,
        seed=None if own.fixed_windows else args.seed,
        streaming=own.streaming,
        cache_dir=own.cache_dir,
        mil_candidates=own.design["mil_candidates"],
    )
    train, held_out = split_by_video(dataset, own.held_out_videos)
    teacher = build_teacher(own.text_model, tokenizer, FeatureStore(own.features, own.streams), **own.design)
    set_attention(own.attn_implementation, teacher)

    trainer = TeacherTrainer(
        model=teacher, args=args, train_dataset=train, eval_dataset=held_out, processing_class=tokenizer
    )
    log_on_main(
        args, f"{number_of(len(train), 'window')} to train on, {len(held_out or ())} of other videos to evaluate on."
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    evaluate_and_save(trainer)
    text = f"--world {own.world}" if on_world else "--text TEXT"
    next_command = f"vidlankd distill --teacher {args.output_dir} {text}"
    log_on_main(args, f"The teacher is in {args.output_dir}. Next: {next_command}")
    end_run(trainer)


if __name__ == "__main__":
    run_example(main)

"""Distills a teacher into a BERT, RoBERTa or ModernBERT, using only text.

Without arguments it uses the grounded world and its teacher in outputs/, which
are made first if they are missing. With your own data, give --teacher (a folder
or Hub id; its tokenizer may differ), --text (a file, folder or Hub data set)
and --student (a size or a checkpoint).
"""

from dataclasses import asdict

from transformers import set_seed

from vidlankd_hf import DistillationConfig, DistillationTrainer, load_teacher, load_text_blocks
from vidlankd_hf.cli import CommandLine, run_example
from vidlankd_hf.data.text_blocks import TextBlocks
from vidlankd_hf.experiments.world import bootstrap
from vidlankd_hf.experiments.world.recipe import STUDENT_RECIPE, in_help
from vidlankd_hf.models.attention import set_attention
from vidlankd_hf.reliability.launch import describe_launch, end_run
from vidlankd_hf.reliability.run_dir import log_on_main, open_run_dir
from vidlankd_hf.training.build import alignment_for, build_student, choose_tokenizers, evaluate_and_save, split_blocks
from vidlankd_hf.training.script_arguments import OUTPUT, PRETRAINING, StudentArguments

GROUPS = {
    "data": ("text", "block_tokens", "held_out_text", "vokens", "world", "cache_dir", "num_proc"),
    "teacher": ("teacher", "teacher_dtype", "teacher_input", "teacher_layer", "teacher_pooling"),
    "student": ("student", "student_model_type", "tokenizer", "attn_implementation"),
    "objectives": ("objectives", "gather_negatives", "mlm_probability"),
    "training": PRETRAINING,
    "output": {**OUTPUT, "no_probe": None},
}


def main() -> None:
    parser = CommandLine(__doc__, (DistillationConfig, StudentArguments), GROUPS, in_help(STUDENT_RECIPE))
    args, own = parser.parse(recipe=lambda given: STUDENT_RECIPE if given.text is None else {})
    log_on_main(args, f"Student: {describe_launch(args)}.")
    on_world = own.text is None
    if on_world:
        if own.teacher is not None:
            bootstrap.check_world(own.world, "--text")
        bootstrap.use_world(own)
    elif own.teacher is None:
        raise ValueError("--text needs --teacher: give the model from which the student learns")
    if own.teacher is None:
        own.teacher = "outputs/teacher"
        bootstrap.make_teacher_if_missing(own.world, own.teacher)
    args.objectives = own.with_num_vokens(args.objectives)
    checkpoint = open_run_dir(args, {**asdict(own), "fingerprints": own.fingerprints()})
    if args.process_index == 0:
        parser.save_settings(args.output_dir)

    set_seed(args.seed)
    tokenizer, teacher_tokenizer = choose_tokenizers(own.student, own.teacher, own.tokenizer)
    student = build_student(own.student, own.teacher, own.student_model_type, tokenizer)
    if student.objectives:
        log_on_main(args, f"{own.student} has heads for {', '.join(student.objectives)}: new ones replace them.")
        student.remove_objectives()
    teacher, options = None, {"num_proc": own.num_proc, "block_tokens": own.block_tokens, "streaming": own.stream_text}
    if args.teacher_needs:
        teacher = load_teacher(own.teacher, dtype=own.teacher_dtype)
        options |= alignment_for(args, teacher, teacher_tokenizer)
    set_attention(own.attn_implementation, student, teacher)
    blocks = load_text_blocks(own.text, tokenizer, own.cache_dir, **options)
    if own.vokens is not None:
        blocks = TextBlocks(blocks.folder, vokens=own.vokens)
    train, held_out = split_blocks(blocks, own.held_out_text, args.per_device_eval_batch_size)

    trainer = DistillationTrainer(
        model=student,
        teacher_model=teacher,
        args=args,
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=tokenizer,
        teacher_tokenizer=teacher_tokenizer,
    )
    log_on_main(args, f"Blocks of text: {len(train)} to train on, {len(held_out or ())} to evaluate on.")
    trainer.train(resume_from_checkpoint=checkpoint)
    evaluate_and_save(trainer)

    log_on_main(
        args,
        f"The student is in {args.output_dir}, an ordinary {student.plain_class.__name__}:\n\n"
        "    from transformers import AutoModelForMaskedLM, AutoTokenizer\n"
        f'    tokenizer = AutoTokenizer.from_pretrained("{args.output_dir}")\n'
        f'    model = AutoModelForMaskedLM.from_pretrained("{args.output_dir}")\n',
    )
    if on_world and not own.no_probe:
        bootstrap.probe_student(trainer, own.world)
    task = f"--task world --data {own.world}" if on_world else "--task sst2"
    log_on_main(args, f"Next: vidlankd finetune --model {args.output_dir} {task}")
    end_run(trainer)


if __name__ == "__main__":
    run_example(main)

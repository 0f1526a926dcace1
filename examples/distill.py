"""Distils a teacher into a BERT, RoBERTa or ModernBERT, on text alone.

Without arguments: on the text of the grounded world below outputs/. World and teacher are made first if missing.
With your own: --teacher (folder or Hub id), --text (file, folder or Hub data set), --student (a size or a checkpoint).
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from transformers import AutoConfig, AutoTokenizer, set_seed

from vidlankd_hf import (
    DistillationConfig,
    DistillationTrainer,
    VidLanKDTeacherConfig,
    load_teacher,
    load_text_blocks,
    student_class,
    student_config,
)
from vidlankd_hf.cli import OUTPUT, TRAINING, CommandLine, also_of_the_world
from vidlankd_hf.data.text_blocks import TextBlocks, read_vokens_info
from vidlankd_hf.data.vocabulary import check_same_vocabulary
from vidlankd_hf.experiments.world.recipe import STUDENT_RECIPE, WORLD_SEED
from vidlankd_hf.hub.model_cards import PROBE_FILE
from vidlankd_hf.models.configuration import MODEL_TYPES, SIZES
from vidlankd_hf.models.objectives import objectives_recipe
from vidlankd_hf.models.teacher import check_path, text_config
from vidlankd_hf.reliability.launch import describe_launch, end_run
from vidlankd_hf.reliability.run_dir import (
    file_fingerprint,
    log_on_main,
    mark_finished,
    open_run_dir,
    run_script,
    run_script_if_missing,
)

EXAMPLES = Path(__file__).parent
GROUPS = {
    "data": ("text", "block_tokens", "held_out_text", "vokens", "world", "cache_dir", "num_proc"),
    "model": ("teacher", "student", "student_model_type", "teacher_dtype"),
    "objectives": ("objectives", "gather_negatives", "mlm_probability"),
    "training": (*TRAINING, "matmul_precision"),
    "output": ("output_dir", *OUTPUT, "no_probe", "preempt_exit_code", "hang_timeout"),
}


@dataclass
class DataArguments:
    teacher: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of a trained teacher, or of a vision-language model (facebook/flava-full) whose "
            "text tower is to teach; default: the world's."
        },
    )
    teacher_dtype: Literal["float32", "bfloat16"] = field(
        default="float32", metadata={"help": "Precision of the frozen teacher; bfloat16 halves its memory."}
    )
    student: str = field(
        default="small",
        metadata={
            "help": f"Size of a new student ({', '.join(SIZES)}), or folder or Hub id of a checkpoint to start from "
            f"({', '.join(MODEL_TYPES)}, or a teacher, whose text encoder the student then starts as)."
        },
    )
    student_model_type: str | None = field(
        default=None, metadata={"help": f"What a new student is: {', '.join(MODEL_TYPES)}; default: bert."}
    )
    text: str | None = field(
        default=None, metadata={"help": "Text file, folder or Hub data set (id:config); default: the world's."}
    )
    world: str = field(default="outputs/world", metadata={"help": "Grounded world, used where --text is not given."})
    no_probe: bool = field(default=False, metadata={"help": "Do not probe the student of the grounded world."})
    block_tokens: int = field(
        default=126, metadata={"help": "Ordinary tokens a block; no more than the teacher's texts had."}
    )
    held_out_text: float = field(default=0.02, metadata={"help": "Share of the blocks kept for evaluation."})
    vokens: str | None = field(
        default=None, metadata={"help": "Folder that vokenize.py wrote for this text; the voken objective needs it."}
    )
    cache_dir: str = field(default="outputs/cache", metadata={"help": "Where tokenised text is kept."})
    num_proc: int = field(default=1, metadata={"help": "Processes that tokenise."})
    stream_text: bool = field(
        default=False,
        metadata={"help": "Tokenise the text as it is downloaded or read, without a copy of it on disk."},
    )


def main() -> None:
    types = (DistillationConfig, DataArguments)
    parser = CommandLine(__doc__, types, GROUPS, defaults=also_of_the_world(STUDENT_RECIPE))
    args, data_args = parser.parse(recipe=lambda given: STUDENT_RECIPE if given.text is None else {})
    log_on_main(args, f"Student: {describe_launch(args)}.")
    world = Path(data_args.world)
    embedded = data_args.text is None
    if embedded:
        data_args.text = str(world / "text")
        make_world = ["--output_dir", str(world), "--seed", str(WORLD_SEED)]
        run_script_if_missing(
            args, world / "world.json", "The grounded world", EXAMPLES / "make_world.py", *make_world
        )
    elif data_args.teacher is None:
        raise ValueError(
            "--text needs --teacher beside it: the teacher whose vocabulary and knowledge the student takes"
        )
    if data_args.teacher is None:
        data_args.teacher = "outputs/teacher"
        pretrain = ["--world", str(world), "--seed", str(WORLD_SEED), "--report_to", "none"]
        weights = Path(data_args.teacher) / "model.safetensors"
        run_script_if_missing(args, weights, "The teacher", EXAMPLES / "pretrain_teacher.py", *pretrain)
    if "voken" in args.objectives:
        if data_args.vokens is None:
            raise ValueError("the voken objective needs --vokens: the folder that examples/vokenize.py wrote")
        recipe = objectives_recipe(args.objectives)
        recipe["voken"]["num_vokens"] = read_vokens_info(data_args.vokens)["num_vokens"]
        args.objectives = recipe
    check_path(data_args.teacher, "the teacher")
    if data_args.student not in SIZES:
        check_path(data_args.student, "the student")
    made_of = {"teacher": file_fingerprint(Path(data_args.teacher) / "model.safetensors")}
    if data_args.vokens is not None:
        made_of["vokens"] = file_fingerprint(Path(data_args.vokens) / "vokens.npy")
    checkpoint = open_run_dir(args, {**asdict(data_args), "fingerprints": made_of})
    if args.process_index == 0:
        parser.save_settings(args.output_dir)

    set_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(data_args.teacher)
    if data_args.student in SIZES:
        kind = data_args.student_model_type or "bert"
        vocab_size = text_config(AutoConfig.from_pretrained(data_args.teacher)).vocab_size
        student = student_class(kind)(student_config(data_args.student, tokenizer, kind, vocab_size=vocab_size))
    else:
        check_same_vocabulary(tokenizer, AutoTokenizer.from_pretrained(data_args.student))
        start = AutoConfig.from_pretrained(data_args.student)
        kind = text_config(start).model_type
        if data_args.student_model_type not in (None, kind):
            raise ValueError(
                f"--student_model_type is {data_args.student_model_type}, but {data_args.student} is a {kind} "
                "checkpoint: leave --student_model_type out, or give a size as --student"
            )
        if isinstance(start, VidLanKDTeacherConfig):
            student = student_class(kind).from_teacher(load_teacher(data_args.student))
        else:
            student = student_class(kind).from_pretrained(data_args.student)
        if student.objectives:
            log_on_main(args, f"{data_args.student} has heads for {', '.join(student.objectives)}: new ones are made.")
            student.remove_objectives()
    teacher = None
    if args.teacher_needs:
        teacher = load_teacher(data_args.teacher, dtype=data_args.teacher_dtype)
    with args.main_process_first(local=False):
        blocks = load_text_blocks(
            data_args.text,
            tokenizer,
            data_args.cache_dir,
            num_proc=data_args.num_proc,
            block_tokens=data_args.block_tokens,
            streaming=data_args.stream_text,
        )
    if data_args.vokens is not None:
        blocks = TextBlocks(blocks.folder, vokens=data_args.vokens)
    batch = args.per_device_eval_batch_size
    train, held_out = blocks.split(max(1, round(data_args.held_out_text * len(blocks) / batch)) * batch)

    trainer = DistillationTrainer(
        model=student,
        teacher_model=teacher,
        args=args,
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=tokenizer,
    )
    log_on_main(args, f"{len(train)} blocks of text to train on, {len(held_out)} to evaluate on.")
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.evaluate()
    trainer.save_model()
    trainer.save_state()
    mark_finished(args)
    log_on_main(
        args,
        f"The student is in {args.output_dir}, an ordinary {student.plain_class.__name__}:\n\n"
        "    from transformers import AutoModelForMaskedLM, AutoTokenizer\n"
        f'    tokenizer = AutoTokenizer.from_pretrained("{args.output_dir}")\n'
        f'    model = AutoModelForMaskedLM.from_pretrained("{args.output_dir}")\n',
    )
    task = f"--task world --data {world}" if embedded else "--task sst2"
    next_command = f"accelerate launch examples/finetune.py --model {args.output_dir} {task}"
    if embedded and not data_args.no_probe and args.process_index == 0:
        print("What it knows about looks it never read of:\n")
        probe = ["--model", args.output_dir, "--world", str(world)]
        run_script(EXAMPLES / "probe.py", *probe, "--output_json", str(Path(args.output_dir) / PROBE_FILE))
        trainer.create_model_card()
    if embedded and not data_args.no_probe and args.push_to_hub:
        trainer.push_to_hub("Results of the probe")
    log_on_main(args, f"Next: {next_command}")
    end_run(trainer)


if __name__ == "__main__":
    main()

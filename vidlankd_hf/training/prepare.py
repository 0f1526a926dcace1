"""Prepares what training reads from disk, from the settings of the training scripts.

A later start with the same settings finds the windows and blocks of text that are made here.
"""

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser

from ..data.streaming import VideoTextStream
from ..data.text_blocks import TextBlocks, load_text_blocks
from ..data.vocabulary import load_tokenizer
from ..models.load_teacher import load_teacher
from ..utils.examples import flags
from .build import alignment_for, choose_tokenizers
from .distillation_config import DistillationConfig
from .script_arguments import StudentArguments, TeacherArguments
from .teacher_trainer import TeacherConfig

ALIGNED_BY = ("objectives", "teacher_input", "teacher_layer", "teacher_pooling")


def prepare_windows(settings: dict[str, Any], num_proc: int) -> VideoTextStream | None:
    """Divides the captions of a teacher into windows.

    Args:
        settings: Settings of the script `pretrain_teacher`.
        num_proc: Number of processes.

    Returns:
        The windows; `None` without `streaming`, when they are made in memory.

    Raises:
        ValueError: Features, captions or tokenizer are not given.
    """
    (own,) = _parse((TeacherArguments,), settings, [field.name for field in fields(TeacherArguments)])
    if not own.streaming:
        return None
    if not (own.features and own.captions and own.tokenizer):
        raise ValueError("the section pretrain_teacher lacks features, captions or tokenizer: give all three")
    max_length = settings.get("max_length", TeacherConfig.max_length)
    options = {"max_unpaired": own.max_unpaired, "streams": own.streams, "cache_dir": own.cache_dir}
    return own.load(load_tokenizer(own.tokenizer), max_length, streaming=True, num_proc=num_proc, **options)


def prepare_blocks(settings: dict[str, Any], num_proc: int, teacher_settings: dict[str, Any]) -> TextBlocks:
    """Tokenizes the text of a student, and aligns it with its teacher's tokenizer if that is another one.

    Args:
        settings: Settings of the script `distill`.
        num_proc: Number of processes.
        teacher_settings: Settings of the script `pretrain_teacher`. A teacher that is not trained yet, or not given,
            has the tokenizer given there.

    Raises:
        ValueError: The text is not given, or text, teacher or tokenizer are not known or do not exist.
    """
    names = [field.name for field in fields(StudentArguments)]
    args, own = _parse(
        (DistillationConfig, StudentArguments), {**settings, "use_cpu": True}, [*names, *ALIGNED_BY, "use_cpu"]
    )
    trained_here = teacher_settings.get("output_dir", TeacherConfig.output_dir) if teacher_settings else None
    teacher = own.teacher = own.teacher or trained_here
    if not (own.text and teacher):
        raise ValueError("the section distill lacks text or teacher: give both")
    if teacher == trained_here and not Path(teacher).exists():
        teacher = teacher_settings.get("tokenizer", teacher)
    tokenizer, teacher_tokenizer = choose_tokenizers(own.student, teacher, own.tokenizer)
    options: dict[str, Any] = {"block_tokens": own.block_tokens, "streaming": own.stream_text, "num_proc": num_proc}
    if args.teacher_needs and teacher_tokenizer is not None:
        options |= alignment_for(args, load_teacher(own.teacher), teacher_tokenizer)
    return load_text_blocks(own.text, tokenizer, own.cache_dir, **options)


def _parse(kinds: tuple, settings: dict[str, Any], names: Iterable[str]) -> tuple:
    """Parses those of a script's settings that determine its data; the others may need a GPU."""
    given = {name: settings[name] for name in names if settings.get(name) is not None}
    return HfArgumentParser(kinds).parse_args_into_dataclasses(flags(given), look_for_args_file=False)

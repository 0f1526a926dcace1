"""New teachers and students from a size or a checkpoint, and the end of a training script."""

from typing import Any

from transformers import AutoConfig, AutoTokenizer

from ..data.features import FeatureStore
from ..data.held_out import MOST_HELD_OUT, check_held_out
from ..data.text_blocks import TextBlocks
from ..data.vocabulary import check_same_vocabulary
from ..models.configuration import SIZES, VidLanKDTeacherConfig, bert_config, student_config, video_config_like
from ..models.load_teacher import load_teacher
from ..models.student import student_class
from ..models.teacher import VidLanKDTeacher, text_config
from ..reliability.run_dir import log_on_main, mark_finished
from ..utils.loading import loading

HELD_OUT_SHARE = 0.02  # of the blocks, by default
NOT_SCORES = ("runtime", "per_second", "epoch")  # endings of what `Trainer.evaluate` also returns


def build_teacher(text_model: str, tokenizer, store: FeatureStore, **design: Any) -> VidLanKDTeacher:
    """Creates a teacher for the features of a store.

    Args:
        text_model: Size of a new text encoder, or Hub id or folder of a BERT to start from.
        tokenizer: Tokenizer of the captions.
        store: Features; their width and statistics go into the teacher.
        design: Further settings of [`VidLanKDTeacherConfig`].
    """
    if text_model in SIZES:
        text = bert_config(text_model, tokenizer)
        video = video_config_like(text, store.feature_size)
        teacher = VidLanKDTeacher(VidLanKDTeacherConfig(text_config=text, video_config=video, **design))
    else:
        with loading(text_model, f"a size ({', '.join(SIZES)}), or the folder or Hub id of a BERT"):
            teacher = VidLanKDTeacher.from_text_pretrained(text_model, store.feature_size, **design)
    if teacher.video_encoder is not None:
        teacher.set_feature_statistics(*store.statistics())
    return teacher


def build_student(student: str, teacher: str, model_type: str | None = None):
    """Creates a student with the vocabulary of a teacher.

    Args:
        student: Size of a new student; or Hub id or folder of a BERT, RoBERTa or ModernBERT to start from, or of a
            teacher whose text encoder the student starts from.
        teacher: Hub id or folder of the teacher.
        model_type: Model type of a new student; `None` means bert.

    Raises:
        ValueError: The checkpoint has another vocabulary than the teacher or is not of `model_type`.
    """
    tokenizer = AutoTokenizer.from_pretrained(teacher, trust_remote_code=False)
    if student in SIZES:
        model_type = model_type or "bert"
        vocab_size = text_config(AutoConfig.from_pretrained(teacher, trust_remote_code=False)).vocab_size
        return student_class(model_type)(student_config(student, tokenizer, model_type, vocab_size=vocab_size))
    with loading(student, f"a size ({', '.join(SIZES)}), or the folder or Hub id of a checkpoint"):
        own_tokenizer = AutoTokenizer.from_pretrained(student, trust_remote_code=False)
        start = AutoConfig.from_pretrained(student, trust_remote_code=False)
    check_same_vocabulary(tokenizer, own_tokenizer)
    found = text_config(start).model_type
    if model_type not in (None, found):
        raise ValueError(
            f"--student_model_type is {model_type}, but {student} is a {found} checkpoint: leave "
            "--student_model_type out, or give a size as --student"
        )
    if isinstance(start, VidLanKDTeacherConfig):
        return student_class(found).from_teacher(load_teacher(student))
    return student_class(found).from_pretrained(student, trust_remote_code=False)


def split_blocks(blocks: TextBlocks, held_out: float | None, batch: int):
    """Splits off the last blocks for evaluation, in complete batches if there are enough blocks.

    Args:
        blocks: All blocks.
        held_out: Share (below 1) or number of the blocks to hold out; 0 holds nothing out. Default: 2 %, but at most
            10,000.
        batch: Blocks in an evaluation batch.

    Returns:
        Training blocks and evaluation blocks; the latter are `None` if `held_out` is 0.

    Raises:
        ValueError: There are too few blocks, or `held_out` is neither a share nor a number.
    """
    if held_out == 0:
        return blocks, None
    check_held_out("--held_out_text", held_out)
    if len(blocks) < 2:
        raise ValueError(
            "the text fills one block, too few to hold one out: give more text, or train on all of it with "
            "--held_out_text 0"
        )
    if held_out is None:
        held_out = min(HELD_OUT_SHARE, MOST_HELD_OUT / len(blocks))
    if held_out >= 1:
        return blocks.split(int(held_out))
    count = max(1, round(held_out * len(blocks) / batch)) * batch
    return blocks.split(count if count < len(blocks) else max(1, round(held_out * len(blocks))))


def evaluate_and_save(trainer) -> None:
    """Saves a trained model, evaluates it if there are evaluation data, and marks its run as finished.

    The model is saved first, so that it is not lost if the evaluation fails. The scores are added to its card.
    """
    trainer.save_model()
    if trainer.eval_dataset is not None:
        scores = {name.removeprefix("eval_"): value for name, value in trainer.evaluate().items()}
        shown = [f"{name} {value:.4g}" for name, value in scores.items() if not name.endswith(NOT_SCORES)]
        log_on_main(trainer.args, f"Held out: {', '.join(shown)}")
        if trainer.args.push_to_hub:
            trainer.push_to_hub("Held-out scores")
        else:
            trainer.create_model_card()
    trainer.save_state()
    mark_finished(trainer.args)

"""New teachers and students from a size or a checkpoint, and the end of a training script."""

from typing import Any

from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from ..data.features import FeatureStore
from ..data.held_out import MOST_HELD_OUT, check_held_out
from ..data.text_blocks import TextBlocks
from ..data.vocabulary import check_same_vocabulary, load_tokenizer, vocabulary_fingerprint
from ..models.attention import longest_sequence
from ..models.configuration import SIZES, VidLanKDTeacherConfig, bert_config, student_config, video_config_like
from ..models.load_teacher import load_teacher
from ..models.student import student_class
from ..models.teacher import VidLanKDTeacher, text_config
from ..reliability.run_dir import log_on_main, mark_finished
from ..utils.loading import loading
from ..utils.messages import nearest
from .checks import check_teacher_options

HELD_OUT_SHARE = 0.02  # of the blocks, by default
NOT_SCORES = ("runtime", "per_second", "epoch")  # endings of other values that `Trainer.evaluate` returns


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
        with loading(
            text_model, f"a size ({', '.join(SIZES)}{nearest(text_model, SIZES)}), or the folder or Hub id of a BERT"
        ):
            teacher = VidLanKDTeacher.from_text_pretrained(text_model, store.feature_size, **design)
    if teacher.video_encoder is not None:
        teacher.set_feature_statistics(*store.statistics())
    return teacher


def choose_tokenizers(
    student: str, teacher: str, tokenizer: str | None = None
) -> tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase | None]:
    """Chooses the tokenizer of a student: a checkpoint keeps its own, a new student gets `tokenizer` or the teacher's.

    Args:
        student, teacher: As in [`build_student`].
        tokenizer: Hub id or folder of the tokenizer of a new student.

    Returns:
        The student's tokenizer; and the teacher's, or `None` if both have the same vocabulary.

    Raises:
        ValueError: `tokenizer` is given for a checkpoint, or a new student cannot use the teacher's tokenizer.
    """
    theirs = load_tokenizer(teacher)
    if student not in SIZES:
        if tokenizer is not None:
            raise ValueError(
                f"--tokenizer is {tokenizer}, but {student} is a checkpoint, which has its own tokenizer: leave "
                f"--tokenizer out, or give a size as --student ({', '.join(SIZES)})"
            )
        with loading(
            student, f"a size ({', '.join(SIZES)}{nearest(student, SIZES)}), or the folder or Hub id of a checkpoint"
        ):
            ours = AutoTokenizer.from_pretrained(student, trust_remote_code=False)
    else:
        ours = theirs if tokenizer is None else load_tokenizer(tokenizer)
        missing = [name for name in ("cls", "sep", "mask", "pad") if getattr(ours, f"{name}_token_id") is None]
        if missing:
            raise ValueError(
                f"the tokenizer of {tokenizer or teacher} has no {', '.join(missing)} token, which a student needs: "
                "give --tokenizer, the tokenizer of a BERT, RoBERTa or ModernBERT, or such a checkpoint as --student"
            )
    same = vocabulary_fingerprint(ours) == vocabulary_fingerprint(theirs)
    return (theirs, None) if same else (ours, theirs)


def build_student(
    student: str, teacher: str, model_type: str | None = None, tokenizer: PreTrainedTokenizerBase | None = None
):
    """Creates a student with the vocabulary of a tokenizer.

    Args:
        student: Size of a new student; or Hub id or folder of a BERT, RoBERTa or ModernBERT to start from, or of a
            teacher whose text encoder the student starts from.
        teacher: Hub id or folder of the teacher.
        model_type: Model type of a new student; `None` means bert.
        tokenizer: The student's tokenizer; `None` means the teacher's.

    Raises:
        ValueError: The checkpoint has another vocabulary than the tokenizer or is not of `model_type`.
    """
    theirs = AutoTokenizer.from_pretrained(teacher, trust_remote_code=False)
    tokenizer = theirs if tokenizer is None else tokenizer
    if student in SIZES:
        model_type, vocab_size = model_type or "bert", len(tokenizer)
        if vocabulary_fingerprint(tokenizer) == vocabulary_fingerprint(theirs):  # for logits of equal width
            config = AutoConfig.from_pretrained(teacher, trust_remote_code=False)
            vocab_size = text_config(config).vocab_size
        return student_class(model_type)(student_config(student, tokenizer, model_type, vocab_size=vocab_size))
    with loading(
        student, f"a size ({', '.join(SIZES)}{nearest(student, SIZES)}), or the folder or Hub id of a checkpoint"
    ):
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


def alignment_for(args, teacher, teacher_tokenizer: PreTrainedTokenizerBase | None) -> dict[str, Any]:
    """Returns the options of [`load_text_blocks`] for a teacher; none if it has the student's tokenizer.

    Args:
        args: The [`DistillationConfig`], which is checked here, because preparing the text may take hours.
        teacher: The teacher.
        teacher_tokenizer: Its tokenizer, if that is not the student's.

    Raises:
        ValueError: An option or objective of `args` does not work with this teacher.
    """
    check_teacher_options(args, teacher, teacher_tokenizer is not None)
    if teacher_tokenizer is None:
        return {}
    return {"teacher_tokenizer": teacher_tokenizer, "teacher_length": longest_sequence(teacher)}


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
            "the text fills only one block, so none can be held out: give more text, or train on all of it with "
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

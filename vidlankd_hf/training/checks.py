"""Checks of a distillation run's models, objectives and data, made when its trainer is constructed."""

from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.text_blocks import BLOCK_TOKENS, TextBlocks, load_text_blocks
from ..data.vocabulary import check_vocabulary_size, tokenizer_fingerprint, vocabulary_fingerprint
from ..models.attention import longest_sequence
from ..models.heads import mlm_head
from ..models.objectives import objectives_recipe
from ..models.student import DistillationStudent
from ..models.teacher import VidLanKDTeacher, text_config

CHECKED_SAMPLES = 64


def check_model(model: Any) -> None:
    """Raises a `ValueError` for a model with adapters of `peft`, around it or inside it."""
    modules = model.modules() if isinstance(model, nn.Module) else [model]
    adapter = next((m for m in modules for c in type(m).__mro__ if c.__module__.partition(".")[0] == "peft"), None)
    if adapter is not None:
        raise ValueError(
            f"the model has an adapter of peft ({type(adapter).__name__}), which is not supported, because what is "
            "saved is an ordinary model: train all its weights, or merge a trained adapter with "
            "model.merge_and_unload() first"
        )


def check_student(student: Any) -> None:
    """Raises a `ValueError` if `student` is not a [`DistillationStudent`]."""
    check_model(student)
    if not isinstance(student, DistillationStudent):
        raise ValueError(
            f"the student is a {type(student).__name__}: load it with VidLanKDStudent.from_pretrained, which takes "
            "any BERT checkpoint, or with student_class(model_type).from_pretrained for RoBERTa and ModernBERT"
        )


def contrastive_objectives(student: DistillationStudent) -> list[str]:
    """Names of the objectives that compare the samples of a batch with each other."""
    return [name for name, objective in student.objectives.items() if getattr(objective, "contrastive", False)]


def check_objectives(student: DistillationStudent, args) -> None:
    """Raises a `ValueError` if the student's objectives are not those of `args`, or a batch is too small for them."""
    has, asked = student.config.distillation["objectives"], objectives_recipe(args.objectives)
    if asked != has:
        raise ValueError(
            f"the student was made for the objectives {has}, but args.objectives is {asked}: give the same ones, or "
            "call student.remove_objectives() first"
        )
    batch, contrastive = args.per_device_train_batch_size, contrastive_objectives(student)
    if contrastive and batch * (args.world_size if args.gather_negatives else 1) < 2:
        raise ValueError(
            f"per_device_train_batch_size is {batch}, but {', '.join(contrastive)} need at least 2 sequences in a "
            "batch"
        )


def differs(tokenizer: PreTrainedTokenizerBase, teacher_tokenizer: PreTrainedTokenizerBase | None) -> bool:
    """Whether the teacher has another tokenizer than the student; `None` means that it has the student's."""
    return teacher_tokenizer is not None and (
        vocabulary_fingerprint(teacher_tokenizer) != vocabulary_fingerprint(tokenizer)
    )


def check_pair(
    student: DistillationStudent,
    teacher,
    tokenizer: PreTrainedTokenizerBase,
    teacher_tokenizer: PreTrainedTokenizerBase | None = None,
) -> None:
    """Raises a `ValueError` if the teacher cannot teach this student: its width, vocabulary or head does not fit.

    Args:
        student: Student with objectives.
        teacher: Teacher, or `None`.
        tokenizer: The student's tokenizer.
        teacher_tokenizer: The teacher's, if it has another one; their vocabularies then need not agree.
    """
    if teacher is None:
        raise ValueError(f"the objectives {', '.join(student.objectives)} need a teacher: give teacher_model")
    width, text = student.config.distillation["teacher_hidden_size"], text_config(teacher.config)
    if width != text.hidden_size:
        raise ValueError(
            f"the student's heads are for teacher states of width {width}, but this teacher's have "
            f"{text.hidden_size}: use the teacher it was made for, or start from its exported plain model"
        )
    other = differs(tokenizer, teacher_tokenizer)
    remedy = "make the student with the teacher's tokenizer, or give that tokenizer as teacher_tokenizer"
    if not other and text.vocab_size != student.config.vocab_size:
        raise ValueError(
            f"the teacher's vocabulary has {text.vocab_size} tokens, the student's {student.config.vocab_size}: "
            f"{remedy}"
        )
    pad = getattr(text, "pad_token_id", student.config.pad_token_id)  # some models do not use it
    if not other and pad != student.config.pad_token_id:
        raise ValueError(
            f"the padding token has id {pad} for the teacher and {student.config.pad_token_id} for the "
            f"student: {remedy}"
        )
    own = teacher_tokenizer or tokenizer
    check_vocabulary_size(own, "teacher", text.vocab_size, getattr(teacher.config, "vocabulary", None))
    if "logits" in student.teacher_needs:
        if not isinstance(teacher, VidLanKDTeacher):
            names = [name for name, objective in student.objectives.items() if "logits" in objective.needs]
            raise ValueError(
                f"{', '.join(names)} needs a teacher with a language-model head, but a {type(teacher).__name__} gives "
                "only states: leave it out, or use a VidLanKDTeacher"
            )
        mlm_head(teacher.text_model)
        if "mlm" not in teacher.loss_terms:
            raise ValueError(
                "soft labels are a teacher's predictions, but this one was trained with losses='contrast', without "
                "MLM: distill its states (nst, crd), or train a teacher with losses='contrast+mlm'"
            )


def check_teacher_options(args, teacher: PreTrainedModel, other_tokenizer: bool) -> None:
    """Raises a `ValueError` for options and objectives of `args` that do not work with this teacher.

    Args:
        args: The [`DistillationConfig`].
        teacher: The teacher.
        other_tokenizer: Whether the teacher has another tokenizer than the student.
    """
    logits = ", ".join(args.objectives_on("logits"))
    if other_tokenizer and logits:
        raise ValueError(
            f"{logits} compares predictions of the same tokens, but the teacher has another tokenizer: distill its "
            "states (nst, crd, infonce, regression), or use a teacher with the student's tokenizer"
        )
    if other_tokenizer and args.teacher_input == "masked":
        raise ValueError(
            "teacher_input is 'masked', but a teacher with its own tokenizer cannot read the student's masked tokens: "
            "leave teacher_input out; the teacher then reads the clean text"
        )
    if args.teacher_input == "clean" and logits:
        raise ValueError(
            f"{logits} compares predictions of masked tokens, but with teacher_input 'clean' the teacher sees these "
            "tokens unmasked: give teacher_input 'masked', or distill states (nst, crd, infonce, regression)"
        )
    if not other_tokenizer and args.teacher_pooling is not None:
        raise ValueError(
            f"teacher_pooling is {args.teacher_pooling!r}, but the teacher has the student's tokenizer, so that their "
            "states are compared token by token: leave teacher_pooling out"
        )
    layers, count = args.teacher_layer, getattr(text_config(teacher.config), "num_hidden_layers", None)
    for layer in layers:
        if count is not None and not -count - 1 <= layer <= count:
            raise ValueError(
                f"teacher_layer is {layer}, but this teacher has {count} layers: give {-count - 1} to {count}; "
                "-1 is the last layer, 0 the embeddings"
            )
    if count is not None and len({layer % (count + 1) for layer in layers}) < len(layers):
        raise ValueError(f"teacher_layer is {layers}, in which a layer occurs twice: give each layer once")


# ---- the data ----


def as_blocks(
    data: Any,
    models: list[PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    teacher_tokenizer: PreTrainedTokenizerBase | None = None,
) -> Any:
    """Returns `data` as the collator reads it: a `datasets.Dataset` of texts becomes blocks of token ids.

    The blocks are kept below the cache of `datasets` (`HF_DATASETS_CACHE`), so that texts are tokenized once.

    Args:
        data: A data set, a dict of several, or `None`.
        models: Student and teacher, which limit the length of a block.
        tokenizer: The student's tokenizer.
        teacher_tokenizer: The teacher's tokenizer, if it has another one; the blocks are then aligned with it.
    """
    if _is_dict_of_several(data):
        return {name: as_blocks(one, models, tokenizer, teacher_tokenizer) for name, one in data.items()}
    columns = getattr(data, "column_names", None)
    if not isinstance(columns, list) or "text" not in columns or "input_ids" in columns:
        return data
    import datasets  # imported only here: other kinds of data need no `datasets`

    student, *teacher = models
    alignment = {}
    if differs(tokenizer, teacher_tokenizer):  # the teacher reads a block in several windows if it must
        models, (reader,) = [student], teacher
        alignment = {"teacher_tokenizer": teacher_tokenizer, "teacher_length": longest_sequence(reader)}
    limits = [limit - 2 for limit in map(longest_sequence, models) if limit is not None]
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "vidlankd"
    return load_text_blocks(data, tokenizer, folder, block_tokens=min([BLOCK_TOKENS, *limits]), **alignment)


def _is_dict_of_several(data: Any) -> bool:
    """Whether `data` is a dict of data sets, and not the `DatasetDict` of splits that `load_dataset` returns."""
    return isinstance(data, dict) and not hasattr(data, "column_names")


def check_texts(name: str, data: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuses data that would train wrongly: without ids, or with special tokens or padding in them.

    The collator adds special tokens and padding itself. At most 64 samples are read, evenly chosen.

    Args:
        name: `train_dataset` or `eval_dataset`, for the message.
        data: A data set, a dict of several, or `None`.
        tokenizer: Tokenizer whose special tokens must not occur in the data.

    Raises:
        ValueError: Says what was found, where, and how to give the texts.
    """
    remedy = "a datasets.Dataset with a column `text`, or load_text_blocks(source, tokenizer)"
    if _is_dict_of_several(data):
        for key, one in data.items():
            check_texts(f"{name}[{key!r}]", one, tokenizer)
        return
    if data is None or isinstance(data, TextBlocks):
        return
    if not (hasattr(data, "__getitem__") and hasattr(data, "__len__")) or isinstance(data, (str, dict)):
        split = " one split," if isinstance(data, dict) else ""
        raise ValueError(f"{name} is a {type(data).__name__}, which cannot be read by index: give{split} {remedy}")
    for index in range(0, len(data), max(1, -(-len(data) // CHECKED_SAMPLES))):
        sample = data[index]
        if "input_ids" not in sample:
            raise ValueError(f"{name} has {', '.join(sample)}, but no input_ids: give {remedy}")
        ids, mask = list(sample["input_ids"]), sample.get("attention_mask")
        if mask is not None and min(mask, default=1) == 0 or tokenizer.pad_token_id in ids:
            found = "padding"
        elif ids and (ids[0] == tokenizer.cls_token_id or ids[-1] == tokenizer.sep_token_id):
            found = f"special tokens ({tokenizer.cls_token} first, {tokenizer.sep_token} last)"
        else:
            continue
        raise ValueError(
            f"the input_ids of {name}[{index}] hold {found}, which the collator adds itself: give {remedy}; or "
            "tokenize with tokenizer(texts, add_special_tokens=False), without padding"
        )


def alignment_of(data: Any) -> dict[str, Any] | None:
    """Returns what `info.json` says about the alignment with a teacher's tokenizer; `None` without alignment."""
    info = getattr(data, "info", None)
    return info.get("alignment") if isinstance(info, dict) else None


def are_aligned(
    train_dataset,
    eval_dataset,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    teacher_tokenizer: PreTrainedTokenizerBase | None,
) -> bool:
    """Whether the data are aligned with the teacher's own tokenizer.

    Args:
        train_dataset, eval_dataset: Data sets or `None`; `eval_dataset` may be a dict of several.
        teacher: The teacher that reads them.
        tokenizer: The student's tokenizer.
        teacher_tokenizer: The teacher's tokenizer, if it has another one.

    Raises:
        ValueError: Data are not aligned although the tokenizers differ, or are aligned for another teacher.
    """
    sets = {"train_dataset": train_dataset}
    if _is_dict_of_several(eval_dataset):
        sets |= {f"eval_dataset[{name!r}]": data for name, data in eval_dataset.items()}
    else:
        sets["eval_dataset"] = eval_dataset
    alignments = {name: alignment_of(data) for name, data in sets.items() if data is not None}
    load = "load_text_blocks(source, tokenizer, teacher_tokenizer=teacher_tokenizer)"
    needed = differs(tokenizer, teacher_tokenizer) or any(alignments.values())
    for name, alignment in alignments.items():
        if not needed:
            continue
        if alignment is None:
            raise ValueError(
                f"{name} is not aligned with the teacher's tokenizer, which is not the student's: give a "
                f"datasets.Dataset with a column `text`, or {load}"
            )
        if teacher_tokenizer is None:
            raise ValueError(
                f"{name} is aligned with a teacher's own tokenizer: give this tokenizer as teacher_tokenizer"
            )
        if alignment["teacher_tokenizer"] != tokenizer_fingerprint(teacher_tokenizer):
            raise ValueError(f"{name} is aligned with another tokenizer than teacher_tokenizer: use {load}")
        longest, length = longest_sequence(teacher), alignment["teacher_length"]
        if longest is not None and (length is None or length > longest):
            raise ValueError(
                f"{name} is for a teacher that reads {length or 'any number of'} tokens at once, but this one takes at"
                f" most {longest}: use {load[:-1]}, teacher_length={longest})"
            )
    return needed


def check_length(model: PreTrainedModel, name: str, dataset) -> None:
    """Raises a `ValueError` if the first block is longer than `model` reads; all blocks are as long as the first."""
    length, longest = len(dataset[0]["input_ids"]) + 2, longest_sequence(model)
    if longest is not None and length > longest:
        raise ValueError(
            f"a block of text has {length} tokens with [CLS] and [SEP], but the {name} reads at most {longest}: give "
            f"--block_tokens {longest - 2} or less"
        )


def check_vokens(student: DistillationStudent, train_dataset, eval_dataset) -> None:
    """Raises a `ValueError` if the objectives need vokens and the data have none, or another number of them."""
    if "vokens" not in student.needs:
        return
    several = list(eval_dataset.values()) if isinstance(eval_dataset, dict) else [eval_dataset]
    for dataset in [data for data in (train_dataset, *several) if data is not None]:
        if "voken_ids" not in dataset[0]:
            raise ValueError(
                "the voken objective needs voken_ids with the text: make them with `vidlankd vokenize` and give the "
                "folder (--vokens, or TextBlocks(..., vokens=...))"
            )
        found = getattr(dataset, "num_vokens", None)
        for name, objective in student.objectives.items():
            expected = getattr(objective, "num_vokens", None)  # only a voken objective has it
            if None not in (expected, found) and expected != found:
                raise ValueError(
                    f"the text has {found} vokens, but the objective {name!r} was made for {expected}: give it as "
                    f'{{"weight": 1.0, "num_vokens": {found}}}'
                )

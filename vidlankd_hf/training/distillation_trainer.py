"""Distils a teacher's token states into a student, on text alone."""

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from ..data.collators import TextCollator
from ..hub.model_cards import write_student_card
from ..models.attention import longest_sequence
from ..models.cpu_kernels import use_cpu_attention
from ..models.heads import mlm_head
from ..models.objectives import objectives_recipe
from ..models.student import DistillationStudent
from ..models.teacher import VidLanKDTeacher, check_text_encoder, text_config
from .base_trainer import BaseTrainer, check_vocabulary_size
from .distillation_config import DistillationConfig


class DistillationTrainer(BaseTrainer):
    """Trains a [`DistillationStudent`] by MLM and the objectives of `args`, beside a frozen teacher.

    Both read the same masked ids. The teacher runs in eval mode without gradients and without its MLM head, and is in
    no checkpoint. `checkpoint-*/` hold the whole student, for resuming; `save_model()` writes the plain model, with
    heads and recipe in `distillation/` beside it.

    Args:
        model: The student ([`VidLanKDStudent`] or one of another kind). If it has no objectives yet, those of `args`
            are added.
        teacher: A [`VidLanKDTeacher`], or any text encoder that gives `last_hidden_state` (see [`load_teacher`]). May
            be `None` if there are no objectives.
        train_dataset, eval_dataset: As [`load_text_blocks`] gives them, or any map-style data set of `input_ids`
            without special tokens.
        processing_class: The tokenizer, the same for both.

    Raises:
        ValueError: At construction, if teacher and student do not fit.

    Example:

        trainer = DistillationTrainer(
            model=student, teacher=teacher, args=DistillationConfig(objectives={"nst": 1000.0}),
            train_dataset=blocks, processing_class=tokenizer,
        )
        trainer.train()
        trainer.save_model()
    """

    _exporting = False  # whether what is saved is the finished student, not a checkpoint

    def __init__(
        self,
        model: DistillationStudent,
        teacher: PreTrainedModel | None = None,
        args: DistillationConfig | None = None,
        train_dataset=None,
        eval_dataset=None,
        processing_class: PreTrainedTokenizerBase | None = None,
        **kwargs,
    ):
        args = DistillationConfig() if args is None else args
        if not isinstance(model, DistillationStudent):
            raise ValueError(
                f"the student is a {type(model).__name__}: load it with VidLanKDStudent.from_pretrained, which takes "
                "any BERT checkpoint, or with that of the other student_class(kind)"
            )
        if teacher is not None:
            check_text_encoder(teacher)
        if processing_class is None:
            raise ValueError("give the tokenizer as processing_class: it makes the special tokens and the masks")
        check_vocabulary_size(processing_class, "student", model.config.vocab_size)
        if args.objectives and not model.objectives:
            if teacher is None and args.teacher_needs:
                raise ValueError(
                    f"the objectives {', '.join(args.objectives)} need a teacher; {{}} trains on text only"
                )
            width = text_config(teacher.config).hidden_size if args.teacher_needs else None
            model.add_objectives(args.objectives, width)
        if model.objectives:
            self._check_objectives(model, args)
            _check_vokens(model, train_dataset, eval_dataset)
        if model.teacher_needs:
            self._check_pair(model, teacher, processing_class)
        if train_dataset is not None:
            _check_length(model, "student", train_dataset)
            if model.teacher_needs:
                _check_length(getattr(teacher, "text_model", teacher), "teacher", train_dataset)
        collator = TextCollator(processing_class, seed=args.seed, mlm_probability=args.mlm_probability)
        super().__init__(
            model,
            args,
            train_dataset,
            eval_dataset,
            processing_class=processing_class,
            data_collator=kwargs.pop("data_collator", collator),
            **kwargs,
        )
        self.teacher = None
        if model.teacher_needs:
            self.teacher = self._prepare_teacher(teacher)

    def evaluation_groups(self, dataset) -> list | None:
        return list(range(len(dataset))) if _contrastive(self.model) else None

    @staticmethod
    def _check_objectives(student, args: DistillationConfig) -> None:
        has, asked = student.config.distillation["objectives"], objectives_recipe(args.objectives)
        if asked != has:
            raise ValueError(
                f"the student was made for the objectives {has}, but args.objectives says {asked}: give the same, or "
                "call student.remove_objectives() first"
            )
        batch, contrastive = args.per_device_train_batch_size, _contrastive(student)
        if contrastive and batch * (args.world_size if args.gather_negatives else 1) < 2:
            raise ValueError(
                f"per_device_train_batch_size is {batch}, but {', '.join(contrastive)} need at least 2 sequences in a "
                "batch"
            )

    @staticmethod
    def _check_pair(student, teacher, tokenizer) -> None:
        if teacher is None:
            raise ValueError(f"the objectives {', '.join(student.objectives)} need a teacher")
        width, text = student.config.distillation["teacher_hidden_size"], text_config(teacher.config)
        if width != text.hidden_size:
            raise ValueError(
                f"the student's heads are for teacher states of width {width}, but this teacher's have "
                f"{text.hidden_size}: use the teacher it was made for, or start from its exported plain model"
            )
        if text.vocab_size != student.config.vocab_size:
            raise ValueError(
                f"the teacher's vocabulary has {text.vocab_size} tokens, the student's {student.config.vocab_size}: "
                "make the student with the teacher's tokenizer"
            )
        if text.pad_token_id != student.config.pad_token_id:
            raise ValueError(
                f"the padding token has id {text.pad_token_id} for the teacher and {student.config.pad_token_id} for "
                "the student: make the student with the teacher's tokenizer"
            )
        check_vocabulary_size(tokenizer, "teacher", text.vocab_size, getattr(teacher.config, "vocabulary", None))
        if "logits" in student.teacher_needs:
            if not isinstance(teacher, VidLanKDTeacher):
                names = [name for name, objective in student.objectives.items() if "logits" in objective.needs]
                raise ValueError(
                    f"{', '.join(names)} needs a teacher with a language-model head, but a {type(teacher).__name__} "
                    "gives states alone: leave it out, or use a VidLanKDTeacher"
                )
            mlm_head(teacher.text_model)
            if "mlm" not in teacher.loss_terms:
                raise ValueError(
                    "soft labels are a teacher's predictions, but this one was trained with losses='contrast', "
                    "without MLM: distil its states (nst, crd), or train a teacher with losses='contrast+mlm'"
                )

    def _prepare_teacher(self, teacher: PreTrainedModel):
        """Frozen, in eval mode, on the device; sharded by an engine of its own under ZeRO-3."""
        teacher.requires_grad_(False)
        teacher.eval()
        if self.args.device.type == "cpu":
            use_cpu_attention(teacher)
        if is_deepspeed_zero3_enabled():
            return _zero3_engine(teacher, self.accelerator.state.deepspeed_plugin.deepspeed_config)
        return self.accelerator.prepare_model(teacher, evaluation_mode=True)

    def model_inputs(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.teacher is None:
            return inputs
        needs, seen = self.model.teacher_needs, {k: inputs.get(k) for k in ("input_ids", "attention_mask")}
        if "logits" in needs:
            seen["masked_positions"] = inputs["masked_positions"]
        with torch.inference_mode():
            output = self.teacher(**seen)
        taught = {"teacher_logits": output.logits} if "logits" in needs else {}
        if "hidden" in needs:
            taught["teacher_states"] = output.last_hidden_state
            gather = self.args.gather_negatives and self.args.world_size > 1 and self.model.training
            if gather and _contrastive(self.model):
                taught["other_teacher_states"] = self._states_of_other_processes(seen, output.last_hidden_state)
        return {**inputs, **taught}

    def _states_of_other_processes(self, seen: dict, states: Tensor) -> tuple[Tensor, Tensor]:
        """States `[N, L, Dt]` and mask `[N, L]` of the others' batches; their length is asked of the device."""
        mask = seen["attention_mask"]
        mask = torch.ones_like(seen["input_ids"]) if mask is None else mask
        rank, ours = self.args.process_index, states.shape[1]
        gathered = []
        for tensor in (states, mask):
            everywhere = self.accelerator.gather(self.accelerator.pad_across_processes(tensor, dim=1))
            others = everywhere.unflatten(0, (self.args.world_size, -1))
            # Positions that we do not have cannot be compared with ours.
            gathered.append(torch.cat([others[:rank], others[rank + 1 :]]).flatten(0, 1)[:, :ours])
        return tuple(gathered)

    def _save_finished(self, folder: Path) -> None:
        """The finished student: plain model, tokenizer, card, and `distillation/`."""
        self._exporting = True
        try:
            super()._save_finished(folder)
        finally:
            self._exporting = False

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if not self._exporting:
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            student: DistillationStudent = self.accelerator.unwrap_model(self.model)
            student.export(state_dict).save_pretrained(output_dir)
            student.save_distillation(output_dir, state_dict)
            self.processing_class.save_pretrained(output_dir)

    def write_card(self, folder: Path) -> None:
        write_student_card(folder, self)


def _contrastive(student: DistillationStudent) -> list[str]:
    return [name for name, objective in student.objectives.items() if getattr(objective, "contrastive", False)]


def _check_length(model: PreTrainedModel, name: str, dataset) -> None:
    """Of the first block, which is as long as all; ragged texts are for their maker to cut."""
    length, longest = len(dataset[0]["input_ids"]) + 2, longest_sequence(model)
    if longest is not None and length > longest:
        raise ValueError(
            f"a block of text has {length} tokens with [CLS] and [SEP], but the {name} reads at most {longest}: give "
            f"--block_tokens {longest - 2} or less"
        )


def _check_vokens(student: DistillationStudent, train_dataset, eval_dataset) -> None:
    if "vokens" not in student.needs:
        return
    several = list(eval_dataset.values()) if isinstance(eval_dataset, dict) else [eval_dataset]
    for dataset in [data for data in (train_dataset, *several) if data is not None]:
        if "voken_ids" not in dataset[0]:
            raise ValueError(
                "the voken objective needs voken_ids beside the text: make them with examples/vokenize.py and give "
                "its folder (--vokens, or TextBlocks(..., vokens=...))"
            )
        for name, objective in student.objectives.items():
            if "vokens" in objective.needs and getattr(dataset, "num_vokens", objective.num_vokens) != (
                objective.num_vokens
            ):
                raise ValueError(
                    f"the text has {dataset.num_vokens} vokens, but the objective {name!r} was made for "
                    f'{objective.num_vokens}: give it as {{"weight": 1.0, "num_vokens": {dataset.num_vokens}}}'
                )


def _zero3_engine(teacher: PreTrainedModel, config: dict):
    import deepspeed

    keep = ("train_micro_batch_size_per_gpu", "zero_optimization", "bf16", "fp16", "zero_force_ds_cpu_optimizer")
    config = {key: config[key] for key in keep if key in config}
    if teacher.dtype == torch.bfloat16:
        config["bf16"] = {"enabled": True}
    engine, *_ = deepspeed.initialize(model=teacher, config=config)
    engine.module.eval()
    return engine

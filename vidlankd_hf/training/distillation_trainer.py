"""Distills a teacher's token states into a student, using only text."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from ..data.collators import TextCollator
from ..data.vocabulary import check_vocabulary_size, tokenizer_fingerprint
from ..hub.model_cards import write_student_card
from ..models.attention import is_causal
from ..models.cpu_kernels import use_cpu_attention
from ..models.loading import gathered_parameters
from ..models.segments import pool_windows
from ..models.student import DistillationStudent
from ..models.teacher import check_text_encoder, text_config
from ..reliability.same_run import model_fingerprint
from ..reliability.trainer_options import check_trainer_arguments
from .base_trainer import BaseTrainer
from .checks import (
    alignment_of,
    are_aligned,
    as_blocks,
    check_length,
    check_model,
    check_objectives,
    check_pair,
    check_student,
    check_teacher_options,
    check_texts,
    check_vokens,
    contrastive_objectives,
    differs,
)
from .distillation_config import DistillationConfig

WINDOWS = ("teacher_input_ids", "teacher_attention_mask")  # fields of a batch that hold the teacher's windows
FOR_TEACHER = (*WINDOWS, "teacher_positions", "teacher_segments")


class DistillationTrainer(BaseTrainer):
    """Trains a [`DistillationStudent`] by MLM and the objectives of `args`, with a frozen teacher.

    Both read the same masked ids; with `teacher_input="clean"`, the teacher reads the text without masks. A teacher
    with another tokenizer reads the clean text in its own tokens, and the states of both are compared by segments of
    the text. The teacher runs in eval mode without gradients, and is in no checkpoint. Its MLM head runs only for an
    objective that compares logits. `checkpoint-*/` hold the complete student, for resuming;
    `save_model()` writes the plain model, with heads and recipe in its folder `distillation/`.

    Args:
        model: The student ([`VidLanKDStudent`], or one of another model type). If it has no objectives yet, those of
            `args` are added.
        teacher_model: A [`VidLanKDTeacher`], or any text encoder that gives `last_hidden_state` (see
            [`load_teacher`]). May be `None` if no objective needs a teacher.
        args: The arguments; `DistillationConfig()` if not given.
        train_dataset, eval_dataset: A `datasets.Dataset` with a column `text`, what [`load_text_blocks`] returns, or
            any map-style data set of `input_ids` without special tokens and padding. Texts are tokenized once, into
            blocks below the cache of `datasets`. `eval_dataset` may be a dict of several. For a teacher with another
            tokenizer, blocks must be aligned: `load_text_blocks(..., teacher_tokenizer=...)`.
        processing_class: The student's tokenizer, and the teacher's if no other is given.
        teacher_tokenizer: The teacher's tokenizer, if it differs from the student's.
        kwargs: Other arguments of `transformers.Trainer`, such as `callbacks`.

    Raises:
        ValueError: At construction, if teacher, student and data do not fit, or an argument is not supported.

    Example:

        trainer = DistillationTrainer(
            model=student, teacher_model=teacher, args=DistillationConfig(objectives={"nst": 1000.0}),
            train_dataset=blocks, processing_class=tokenizer,
        )
        trainer.train()
        trainer.save_model()
    """

    _exporting = False  # whether the finished student is being saved, not a checkpoint

    def __init__(
        self,
        model: DistillationStudent,
        teacher_model: PreTrainedModel | None = None,
        args: DistillationConfig | None = None,
        train_dataset=None,
        eval_dataset=None,
        processing_class: PreTrainedTokenizerBase | None = None,
        teacher_tokenizer: PreTrainedTokenizerBase | None = None,
        **kwargs,
    ):
        args = DistillationConfig() if args is None else args
        check_trainer_arguments({**kwargs, "args": args}, DistillationConfig)
        if "teacher" in kwargs:
            warnings.warn("`teacher` is deprecated: use `teacher_model`", FutureWarning, stacklevel=2)
            if teacher_model is not None:
                raise ValueError("both teacher_model and teacher are given: give only teacher_model")
            teacher_model = kwargs.pop("teacher")
        check_student(model)
        if teacher_model is not None:
            check_model(teacher_model)
            check_text_encoder(teacher_model)
        if processing_class is None:
            raise ValueError("give the tokenizer as processing_class: it makes the special tokens and the masks")
        check_vocabulary_size(processing_class, "student", model.config.vocab_size)
        if args.objectives and not model.objectives:
            if teacher_model is None and args.teacher_needs:
                raise ValueError(
                    f"the objectives {', '.join(args.objectives)} need a teacher: give teacher_model; "
                    "objectives={} trains on text only"
                )
            width = text_config(teacher_model.config).hidden_size if args.teacher_needs else None
            model.add_objectives(args.objectives, width)
        if model.objectives:
            check_objectives(model, args)
        readers, tokenizers = [model], (processing_class, teacher_tokenizer if model.teacher_needs else None)
        if model.teacher_needs:
            check_pair(model, teacher_model, *tokenizers)
            aligned = differs(*tokenizers) or alignment_of(train_dataset) is not None
            check_teacher_options(args, teacher_model, aligned)
            readers.append(teacher_model)
        train_dataset = as_blocks(train_dataset, readers, *tokenizers)
        eval_dataset = as_blocks(eval_dataset, readers, *tokenizers)
        check_texts("train_dataset", train_dataset, processing_class)
        check_texts("eval_dataset", eval_dataset, processing_class)
        check_vokens(model, train_dataset, eval_dataset)
        aligned = bool(model.teacher_needs) and are_aligned(train_dataset, eval_dataset, readers[-1], *tokenizers)
        if train_dataset is not None:
            for reader, name in zip(readers[:1] if aligned else readers, ("student", "teacher")):
                check_length(reader, name, train_dataset)
        causal = aligned and is_causal(teacher_model)
        if "data_collator" not in kwargs:
            reads: dict[str, Any] = {"clean_teacher_input": True} if args.teacher_input == "clean" else {}
            if aligned:
                reads = {"teacher_tokenizer": teacher_tokenizer, "causal_teacher": causal}
            collator = TextCollator(processing_class, seed=args.seed, mlm_probability=args.mlm_probability, **reads)
            kwargs["data_collator"] = collator
        super().__init__(model, args, train_dataset, eval_dataset, processing_class=processing_class, **kwargs)
        self.teacher_model = self._teacher_fingerprint = self._teacher_config = None
        self.teacher_tokenizer = teacher_tokenizer if aligned else processing_class
        self.teacher_reads_clean_text = aligned or args.teacher_input == "clean"
        self.teacher_pooling = (args.teacher_pooling or ("last" if causal else "mean")) if aligned else None
        if model.teacher_needs:
            with gathered_parameters(teacher_model):
                self._teacher_fingerprint = model_fingerprint(teacher_model)
            self._teacher_config = teacher_model.config
            self.teacher_model = self._prepare_teacher(teacher_model)

    def fingerprints(self) -> dict[str, str | None]:
        of_teacher = {"teacher": self._teacher_fingerprint}
        if self.teacher_model is not None:
            of_teacher["teacher_tokenizer"] = tokenizer_fingerprint(self.teacher_tokenizer)
        return {**super().fingerprints(), **of_teacher}

    def configs(self) -> dict[str, PreTrainedConfig]:
        teacher = {} if self._teacher_config is None else {"teacher_config": self._teacher_config}
        return {**super().configs(), **teacher}

    def evaluation_groups(self, dataset) -> list | None:
        return list(range(len(dataset))) if contrastive_objectives(self.model) else None

    def _prepare_teacher(self, teacher: PreTrainedModel):
        """Returns the teacher frozen, in eval mode and on the device; ZeRO-3 shards it with a separate engine."""
        teacher.requires_grad_(False)
        teacher.eval()
        if self.args.device.type == "cpu":
            use_cpu_attention(teacher)
        if is_deepspeed_zero3_enabled():
            return _zero3_engine(teacher, self.accelerator.state.deepspeed_plugin.deepspeed_config)
        # A model that is quantized, or spread over devices by a device_map, must not be moved.
        placed = any(getattr(teacher, name, None) for name in ("quantization_method", "hf_device_map"))
        if not placed:
            teacher.to(self.args.device)  # accelerate does not place a frozen model under FSDP
        return self.accelerator.prepare_model(teacher, device_placement=not placed, evaluation_mode=True)

    def model_inputs(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        given = {name: value for name, value in inputs.items() if name not in FOR_TEACHER}
        if self.teacher_model is None:
            return given
        needs, taught = self.model.teacher_needs, {}
        with torch.inference_mode():
            output = self.teacher_model(**self._teacher_inputs(inputs))
            if "logits" in needs:
                taught["teacher_logits"] = output.logits
            if "hidden" in needs:
                taught["teacher_states"] = states = self._teacher_states(output, inputs)
        gather = self.args.gather_negatives and self.args.world_size > 1 and self.model.training
        if "hidden" in needs and gather and contrastive_objectives(self.model):
            mask = inputs.get("segment_mask", inputs.get("attention_mask"))
            taught["other_teacher_states"] = self._states_of_other_processes(states, mask)
        return {**given, **taught}

    def _teacher_inputs(self, inputs: dict[str, Tensor]) -> dict[str, Any]:
        """What the teacher reads: the student's tokens with or without masks, or windows in the teacher's tokens."""
        if self.teacher_reads_clean_text and "teacher_input_ids" not in inputs:
            raise ValueError("the batch has no teacher_input_ids: use the TextCollator, or leave teacher_input out")
        in_windows = "teacher_positions" in inputs
        seen: dict[str, Any] = {
            "input_ids": inputs.get("teacher_input_ids", inputs["input_ids"]),
            "attention_mask": inputs.get("teacher_attention_mask" if in_windows else "attention_mask"),
        }
        if "logits" in self.model.teacher_needs:
            seen["masked_positions"] = inputs["masked_positions"]
        if self.args.teacher_layer != [-1]:
            seen["output_hidden_states"] = True
        return seen

    def _teacher_states(self, output, inputs: dict[str, Tensor]) -> Tensor:
        """Returns the states to learn from: `[B, L, Dt]`, or `[B, S, Dt]` pooled to segments."""
        if self.args.teacher_layer == [-1]:
            states = output.last_hidden_state
        else:
            last = (-1, len(output.hidden_states) - 1)  # after the final norm, which hidden_states[-1] may lack
            layers = self.args.teacher_layer
            chosen = [output.last_hidden_state if i in last else output.hidden_states[i] for i in layers]
            states = chosen[0] if len(chosen) == 1 else torch.stack(chosen).mean(0)
        if "teacher_positions" not in inputs:
            return states
        positions, segments = inputs["teacher_positions"], inputs["teacher_segments"]
        count, last = inputs["segment_mask"].shape[1], self.teacher_pooling == "last"
        return pool_windows(states, positions, segments, count, last)

    def first_samples(self, batch: dict[str, Tensor], count: int) -> dict[str, Tensor]:
        """See [`BaseTrainer.first_samples`]; all of the teacher's windows stay, since a sample may have several."""
        first = super().first_samples(batch, count)
        return {**first, **{name: batch[name] for name in WINDOWS if "teacher_positions" in batch and name in batch}}

    def collect(self, outputs, batch: dict[str, Tensor], real: int) -> dict[str, Tensor]:
        masked = batch["masked_labels"] != -100
        return {"correct": outputs.correct[:real].sum(), "masked": masked[:real].sum()}

    def collected_metrics(self, collected: list[dict[str, Tensor]]) -> dict[str, float]:
        """Share of the masked tokens for which the student's most likely token is the right one."""
        counts = torch.stack([torch.stack([c["correct"], c["masked"]]) for c in collected]).sum(0)
        correct, masked = self.accelerator.reduce(counts, "sum").tolist()
        return {"mlm_accuracy": correct / max(masked, 1)}

    def _states_of_other_processes(self, states: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """States `[N, L, Dt]` and mask `[N, L]` of the other processes' batches, or `[N, S, Dt]` of segments."""
        mask = torch.ones_like(states[..., 0]) if mask is None else mask
        rank, ours = self.args.process_index, states.shape[1]
        # In one tensor, because every padding compares the lengths on the host, which waits for the device.
        both = torch.cat([states, mask[..., None].to(states.dtype)], dim=-1)
        everywhere = self.accelerator.gather(self.accelerator.pad_across_processes(both, dim=1))
        others = everywhere.unflatten(0, (self.args.world_size, -1))
        # Positions beyond our batch's length have no counterpart to compare with.
        others = torch.cat([others[:rank], others[rank + 1 :]]).flatten(0, 1)[:, :ours]
        return others[..., :-1], others[..., -1]

    def _save_finished(self, folder: Path) -> None:
        """Writes the plain model, the tokenizer, the card, and `distillation/`."""
        self._exporting = True
        try:
            super()._save_finished(folder)
        finally:
            self._exporting = False

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if not self._exporting:
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            student = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
            student.export(state_dict).save_pretrained(output_dir)
            student.save_distillation(output_dir, state_dict)
            self.processing_class.save_pretrained(output_dir)

    def write_card(self, folder: Path) -> None:
        write_student_card(folder, self)


def _zero3_engine(teacher: PreTrainedModel, config: dict):
    if getattr(teacher, "quantization_method", None):
        raise ValueError("ZeRO-3 cannot shard a quantized teacher: load it in bfloat16, or use ZeRO-2")
    import deepspeed

    keep = ("train_micro_batch_size_per_gpu", "zero_optimization", "bf16", "fp16", "zero_force_ds_cpu_optimizer")
    config = {key: config[key] for key in keep if key in config}
    half = {torch.bfloat16: "bf16", torch.float16: "fp16"}
    if teacher.dtype in half:
        config = {key: value for key, value in config.items() if key not in half.values()}
        config[half[teacher.dtype]] = {"enabled": True}
    engine, *_ = deepspeed.initialize(model=teacher, config=config)
    engine.module.eval()
    return engine

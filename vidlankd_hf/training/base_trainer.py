"""What our trainers share: exact means over accumulation and ranks, component logging, evaluation, checkpoints.

Stock transformers takes a mean of micro-batch means, which is wrong for ragged batches, and scales BERT's loss by the
accumulation steps and ranks (transformers#47688). Here every component c of the loss is a mean over its own items
(masked tokens, real tokens, sequences, vokens), and a micro-batch counts with its share of the optimizer step's items:

    loss = sum_c weight_c * mean_c * items_c / items_c(all micro-batches, all ranks) * ranks

(DDP and ZeRO divide by `ranks` again.) So a step's gradient does not depend on how its samples are split.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from ..data.vocabulary import vocabulary_fingerprint
from ..reliability.fault_tolerant_trainer import FaultTolerantArguments
from .publishing import PublishingTrainer
from .sampler import EpochDataset, EpochSampler

logger = logging.get_logger(__name__)

ITEMS = ("masked_tokens", "tokens", "sequences", "vokens")
MATMUL_PRECISIONS = ("highest", "high", "medium")


@dataclass
class PretrainingArguments(FaultTolerantArguments):
    """[`FaultTolerantArguments`] with the defaults that pre-training on video and text needs.

    Args:
        mlm_probability: Share of a sequence's ordinary tokens that is masked.
        matmul_precision: `torch.set_float32_matmul_precision`: "highest" is full float32; "high" and "medium" allow
            TF32 on GPUs, bfloat16 on CPUs with AMX and faster float32 kernels on other CPUs.
    """

    mlm_probability: float = field(
        default=0.15,
        metadata={"help": "Share of a sequence's ordinary tokens that is masked, strictly between 0 and 1."},
    )
    matmul_precision: str = field(
        default="highest",
        metadata={
            "help": "Precision of float32 matrix products: highest, high or medium (TF32 on GPUs, bf16 on AMX CPUs)."
        },
    )
    adam_epsilon: float = field(default=1e-6, metadata={"help": "Epsilon of AdamW; the paper's 1e-6."})
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay of AdamW; the paper's 0.01."})
    max_grad_norm: float = field(
        default=1.0, metadata={"help": "Gradients are clipped to this norm; the paper's 1.0."}
    )

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.mlm_probability < 1:
            raise ValueError(f"mlm_probability is {self.mlm_probability}: give a share between 0 and 1, such as 0.15")
        if self.matmul_precision not in MATMUL_PRECISIONS:
            raise ValueError(
                f"matmul_precision is {self.matmul_precision!r}: choose one of {', '.join(MATMUL_PRECISIONS)}"
            )


class PretrainingTrainer(PublishingTrainer):
    """Base of [`TeacherTrainer`] and [`DistillationTrainer`].

    The model returns `losses`, a dict of component means, and says in `loss_terms` each one's weight and items. Train
    and evaluation data are map-style, so that nothing is read to skip it; their samples reach the collator with
    `sample_id` and `epoch`.
    """

    def __init__(self, model, args: PretrainingArguments, train_dataset=None, eval_dataset=None, **kwargs):
        torch.set_float32_matmul_precision(args.matmul_precision)
        super().__init__(
            model=model,
            args=args,
            train_dataset=None if train_dataset is None else EpochDataset(train_dataset),
            eval_dataset=eval_dataset,
            **kwargs,
        )
        # Makes the stock training_step leave the loss as compute_loss scaled it.
        self.model_accepts_loss_kwargs = True
        self.can_return_loss = True
        self._eval_batch_size = args.per_device_eval_batch_size
        sets = eval_dataset.values() if isinstance(eval_dataset, dict) else [eval_dataset]
        for dataset in sets:  # an error now rather than at the first evaluation
            self._give_evaluation_negatives(dataset)

    def _get_train_sampler(self, train_dataset=None) -> EpochSampler:
        dataset, args = self.train_dataset if train_dataset is None else train_dataset, self.args
        return EpochSampler(
            len(dataset),
            args.train_batch_size * args.world_size * args.gradient_accumulation_steps,
            args.seed,
            shard_sizes=dataset.shard_sizes,
        )

    def _get_eval_sampler(self, eval_dataset) -> EpochSampler:
        return EpochSampler(len(eval_dataset), 1, seed=0)

    def get_eval_dataloader(self, eval_dataset=None):
        if eval_dataset is None:
            eval_dataset = self.eval_dataset
        elif isinstance(eval_dataset, str):
            eval_dataset = self.eval_dataset[eval_dataset]
        self._give_evaluation_negatives(eval_dataset)
        return super().get_eval_dataloader(None if eval_dataset is None else EpochDataset(eval_dataset))

    # ---- exact means ----

    def _get_num_items_in_batch(self, batch_samples: list[dict], device: torch.device) -> Tensor:
        """Items `[4]` (see `ITEMS`) of one optimizer step: of all its micro-batches, on all ranks."""
        items = torch.stack([_count_items(batch) for batch in batch_samples]).sum(0).to(device)
        return self.accelerator.reduce(items, "sum")

    def model_inputs(self, inputs: dict[str, Tensor]) -> dict[str, Any]:
        """What the model is called with; the distillation trainer adds the teacher's states."""
        return inputs

    def compute_loss(self, model, inputs, return_outputs: bool = False, num_items_in_batch: Tensor | None = None):
        items = _count_items(inputs)
        outputs = model(**self.model_inputs(inputs))
        all_items = self.accelerator.reduce(items, "sum") if num_items_in_batch is None else num_items_in_batch
        shares = items / all_items.clamp(min=1) * self.accelerator.num_processes
        loss = sum(
            weight * shares[ITEMS.index(unit)] * outputs.losses[name]
            for name, (weight, unit) in self.model.loss_terms.items()
        )
        self.record_losses(outputs.losses)
        self._accumulate(self._totals, outputs.losses, items)
        return (loss, outputs) if return_outputs else loss

    def _accumulate(self, totals: dict[str, Tensor], losses: dict[str, Tensor], items: Tensor) -> None:
        """Adds each component's (sum, items) to `totals` on the device."""
        for name, (_, unit) in self.model.loss_terms.items():
            count = items[ITEMS.index(unit)]
            pair = torch.stack([losses[name].detach().double() * count, count.double()])
            totals[name] = totals[name] + pair if name in totals else pair

    def _component_means(self, totals: dict[str, Tensor]) -> dict[str, float]:
        """Exact means over all ranks of what was accumulated: one collective, one transfer to the host."""
        if not totals:
            return {}
        sums = self.accelerator.reduce(torch.stack(list(totals.values())), "sum").cpu()
        return {name: (total / count).item() if count else 0.0 for name, (total, count) in zip(totals, sums)}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            means = self._component_means(self._totals)
            logs.update({f"{name}_loss": value for name, value in means.items()})
            self._totals = {}
        super().log(logs, start_time)

    # ---- evaluation ----

    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ) -> EvalLoopOutput:
        """Exact means of every component over the whole evaluation data, the same on any number of ranks.

        Masks are those of epoch 0, always. Contrastive components see the negatives of their batch.
        """
        model = self._prepare_for_evaluation()
        size, batch_size = len(dataloader.dataset), self.args.eval_batch_size
        totals: dict[str, Tensor] = {}
        collected: list[dict[str, Tensor]] = []
        hidden = self.args.disable_tqdm or not self.is_world_process_zero()
        for step, batch in enumerate(tqdm(dataloader, desc=description, leave=False, disable=hidden)):
            batch = self._prepare_inputs(batch)
            # Ranks get whole batches in turn; those past the end repeat samples from the beginning.
            first = (step * self.args.world_size + self.args.process_index) * batch_size
            real = min(max(size - first, 0), len(batch["input_ids"]))
            kept = {name: value[:real] for name, value in batch.items()} if real else batch
            with torch.no_grad(), self.compute_loss_context_manager():
                outputs = model(**self.model_inputs(kept))
            self._accumulate(totals, outputs.losses, _count_items(kept) * (real > 0))
            collected.append(self.collect(outputs, kept, real))
            self.on_evaluation_batch_end()
        means = self._component_means(totals)
        metrics = {f"{metric_key_prefix}_{name}_loss": value for name, value in means.items()}
        metrics[f"{metric_key_prefix}_loss"] = sum(w * means[name] for name, (w, _) in self.model.loss_terms.items())
        if "mlm" in means:
            metrics[f"{metric_key_prefix}_perplexity"] = float(torch.tensor(means["mlm"]).exp())
        for name, value in self.collected_metrics(collected, size).items():
            metrics[f"{metric_key_prefix}_{name}"] = value
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=size)

    def _prepare_for_evaluation(self):
        """The model as training wrapped it, or wrapped for evaluation alone, in eval mode."""
        if not any(self.accelerator.unwrap_model(model) is self.model for model in self.accelerator._models):
            if is_deepspeed_zero3_enabled():
                raise ValueError("ZeRO-3 cannot evaluate before training: train first, or evaluate without DeepSpeed")
            self.model_wrapped = self.accelerator.prepare_model(self.model, evaluation_mode=True)
        self.model_wrapped.eval()
        return self.model_wrapped

    def evaluation_groups(self, dataset) -> list | None:
        """Of each sample its group, in which none is another's negative; `None` for a model without contrast."""
        return None

    def _give_evaluation_negatives(self, dataset) -> None:
        """Moves the evaluation batch size to the nearest at which every batch of `dataset` holds a negative.

        Raises:
            ValueError: There is no such size up to twice the one asked for.
        """
        asked = self.args.per_device_eval_batch_size = self._eval_batch_size
        groups = None if dataset is None else self.evaluation_groups(dataset)
        if groups is None:
            return
        order = [groups[i] for i in self._get_eval_sampler(groups)]
        for size in sorted(range(2, 2 * asked + 1), key=lambda size: (abs(size - asked), size)):
            if all(len(set(order[first : first + size])) > 1 for first in range(0, len(order), size)):
                if size != asked:
                    logger.warning_once(
                        f"Evaluating {size} samples at a time instead of {asked}, so that each batch holds a negative."
                    )
                self.args.per_device_eval_batch_size = size
                return
        raise ValueError(
            f"the evaluation data ({len(order)} samples of {len(set(groups))} videos or texts) cannot be divided into "
            f"batches of about {asked} that all hold a negative: hold out more (--held_out_videos, --held_out_text) "
            "or change --per_device_eval_batch_size"
        )

    def collect(self, outputs, batch: dict[str, Tensor], real: int) -> dict[str, Tensor]:
        """What of a batch's first `real` samples is kept for [`collected_metrics`]: nothing, unless overridden."""
        return {}

    def collected_metrics(self, collected: list[dict[str, Tensor]], size: int) -> dict[str, float]:
        """Metrics over the whole evaluation data from what [`collect`] kept on this rank."""
        return {}


def _count_items(batch: dict[str, Tensor]) -> Tensor:
    """`[4]` float tensor on the batch's device: masked tokens, real tokens, sequences, tokens with a voken."""
    input_ids, mask, voken_ids = (batch.get(name) for name in ("input_ids", "attention_mask", "voken_ids"))
    tokens = torch.full((), input_ids.numel(), device=input_ids.device) if mask is None else mask.sum()
    sequences = torch.full((), len(input_ids), device=input_ids.device)
    vokens = torch.zeros_like(tokens) if voken_ids is None else (voken_ids != -100).sum()
    return torch.stack([(batch["masked_labels"] != -100).sum(), tokens, sequences, vokens]).float()


def check_vocabulary_size(tokenizer, model_name: str, vocab_size: int, recorded: str | None = None) -> str:
    """Fingerprint of `tokenizer`, once it is known to fit a model of `vocab_size` (and `recorded`, if it has one)."""
    fingerprint = vocabulary_fingerprint(tokenizer)
    if len(tokenizer) > vocab_size:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens, but the {model_name} has embeddings for {vocab_size}: "
            f"use the {model_name}'s own tokenizer"
        )
    if recorded is not None and recorded != fingerprint:
        raise ValueError(
            f"the {model_name} was trained with another vocabulary ({recorded[:12]}) than the tokenizer's "
            f"({fingerprint[:12]}): use the tokenizer saved beside the {model_name}"
        )
    return fingerprint

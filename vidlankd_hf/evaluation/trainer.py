"""Fine-tuning with exact means, and batches of like lengths that are padded no further than they need.

A step's loss is the mean over all its sequences (for spans: windows), however they are split into micro-batches and
processes. Stock transformers takes a mean of micro-batch means, which differs where the last is smaller.
"""

import numpy as np
import torch
from torch import Tensor

from ..training.publishing import PublishingTrainer
from ..training.sampler import EpochSampler
from .arguments import FinetuningArguments
from .heads import TARGETS, Collator, Head, length_of

STEPS_PER_GROUP = 50  # so many steps' samples are sorted by length together


class GroupedSampler(EpochSampler):
    """[`EpochSampler`] whose optimizer steps hold samples of like length; still a pure function of (seed, epoch).

    Samples of `STEPS_PER_GROUP` steps are sorted by length and cut into steps, whose order is then random.

    Args:
        lengths: Of the samples.
        samples_per_step: Samples of one optimizer step: processes x micro-batch x accumulation.
        seed: Of the run.
    """

    def __init__(self, lengths: list[int], samples_per_step: int, seed: int):
        super().__init__(len(lengths), samples_per_step, seed)
        self.lengths, self.samples_per_step = np.array(lengths), samples_per_step

    def __iter__(self):
        order = np.array(list(super().__iter__())) - self.epoch * self.size
        group_size = self.samples_per_step * STEPS_PER_GROUP
        groups = np.split(order, range(group_size, self.length, group_size))
        by_length = np.concatenate([group[np.argsort(self.lengths[group], kind="stable")] for group in groups])
        steps = by_length.reshape(-1, self.samples_per_step)
        yield from np.random.Generator(np.random.PCG64([self.seed, self.epoch, 1])).permutation(steps).ravel().tolist()


class FinetuningTrainer(PublishingTrainer):
    """A Trainer of one [`Head`] on its features."""

    def __init__(self, model, args: FinetuningArguments, head: Head, tokenizer, train_features: list[dict], **kwargs):
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_features,
            data_collator=Collator(tokenizer),
            processing_class=tokenizer,
            **kwargs,
        )
        self.head = head
        self.model_accepts_loss_kwargs = True  # makes the stock training_step leave the loss as compute_loss scaled it

    def _get_train_sampler(self, train_dataset=None) -> GroupedSampler:
        args = self.args
        step = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
        return GroupedSampler([length_of(feature) for feature in self.train_dataset], step, args.order_seed)

    def _get_num_items_in_batch(self, batch_samples: list[dict], device: torch.device) -> Tensor:
        """Samples of one optimizer step: of all its micro-batches, on all ranks."""
        count = torch.tensor(float(sum(len(batch["input_ids"]) for batch in batch_samples)), device=device)
        return self.accelerator.reduce(count, "sum")

    def compute_loss(self, model, inputs, return_outputs: bool = False, num_items_in_batch: Tensor | None = None):
        batch = {name: value for name, value in inputs.items() if name not in TARGETS}
        outputs = model(**batch)
        loss = self.head.losses(outputs, inputs).sum() / num_items_in_batch * self.accelerator.num_processes
        self.record_losses({"loss": loss})
        return (loss, outputs) if return_outputs else loss

    def predict_features(self, features: list[dict]):
        """Logits of every feature, in their order, the same on any number of ranks; padding is -100."""
        order = np.argsort([-length_of(feature) for feature in features], kind="stable")
        inputs = [{n: v for n, v in features[i].items() if n not in TARGETS} for i in order]
        logits = self.predict(inputs).predictions
        back = np.argsort(order)
        return tuple(part[back] for part in logits) if isinstance(logits, tuple) else logits[back]

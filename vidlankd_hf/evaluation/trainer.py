"""Fine-tunes a model on a task, in batches of similar length.

The loss of a step is the exact mean over all its sequences (for spans: windows), however they are split into
micro-batches and processes.
"""

import numpy as np
from torch import Tensor
from transformers import Trainer

from ..training.base_trainer import BaseTrainer
from ..training.sampler import EpochSampler
from .arguments import FinetuningArguments
from .heads import TARGETS, Collator, Head, length_of

STEPS_PER_GROUP = 50  # number of steps whose samples are sorted by length together


class GroupedSampler(EpochSampler):
    """[`EpochSampler`] whose optimizer steps hold samples of similar length; the order depends only on (seed, epoch).

    Samples of `STEPS_PER_GROUP` steps are sorted by length and cut into steps, which are then shuffled.

    Args:
        lengths: Length of each sample in tokens.
        samples_per_step: Samples of one optimizer step: processes x micro-batch x accumulation.
        seed: Seed of the run.
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


class FinetuningTrainer(BaseTrainer):
    """Trainer of one [`Head`] on its features.

    Args:
        model: Encoder with the head of a task.
        args: Training arguments.
        head: The task's [`Head`].
        tokenizer: The tokenizer of the model.
        train_features: Features as [`Head.encode`] returns them.
    """

    # `BaseTrainer` evaluates without collecting logits, but predictions need them.
    evaluation_loop, predict = Trainer.evaluation_loop, Trainer.predict
    loss_terms = {"loss": (1.0, "sequences")}

    def __init__(self, model, args: FinetuningArguments, head: Head, tokenizer, train_features: list[dict], **kwargs):
        super().__init__(
            model, args, train_features, data_collator=Collator(tokenizer), processing_class=tokenizer, **kwargs
        )
        self.head = head

    def _get_train_sampler(self, train_dataset=None) -> GroupedSampler:
        lengths = [length_of(feature) for feature in self.train_dataset.dataset]
        return GroupedSampler(lengths, self.samples_per_step, self.args.order_seed)

    def compute_means(self, model, inputs: dict[str, Tensor]):
        outputs = model(**{name: value for name, value in inputs.items() if name not in TARGETS})
        losses = self.head.losses(outputs, inputs)
        return {"loss": losses.sum() / len(losses)}, outputs

    def predict_features(self, features: list[dict]):
        """Predicts the logits of features.

        Args:
            features: Features as [`Head.encode`] returns them.

        Returns:
            Array of logits, or a tuple of arrays, in the order of `features`, padded with -100; the same on any number
            of ranks.
        """
        order = np.argsort([-length_of(feature) for feature in features], kind="stable")
        inputs = [{n: v for n, v in features[i].items() if n not in TARGETS} for i in order]
        logits = self.predict(inputs).predictions
        back = np.argsort(order)
        return tuple(part[back] for part in logits) if isinstance(logits, tuple) else logits[back]

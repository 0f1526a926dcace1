"""Base of the trainers of teacher, student and downstream tasks: exact means, evaluation, publishing."""

from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import CommitInfo
from torch import Tensor
from torch.utils.data import Subset
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from ..hub.push import PushError, make_repository, push
from ..reliability import run_dir
from ..reliability.arguments import FaultTolerantArguments
from ..reliability.checkpointing import move_into, saves_on_every_machine
from ..reliability.fault_tolerant_trainer import FaultTolerantTrainer
from ..reliability.ranks import raise_if_any_rank_failed
from .arguments import PretrainingArguments
from .exact_means import Terms, add_to_totals, count_items, means_of_totals, scaled_loss
from .sampler import EpochDataset, EpochSampler, SetEpoch, batch_size_with_negatives, evaluation_order

logger = logging.get_logger(__name__)


class BaseTrainer(FaultTolerantTrainer):
    """Base of [`TeacherTrainer`], [`DistillationTrainer`] and [`FinetuningTrainer`].

    The model returns `losses`, a dict of component means, and `loss_terms` holds the weight and unit of each one.
    Datasets are map-style; samples reach the collator with `sample_id` and `epoch`.

    Args:
        model: The model to train.
        args: Training arguments.
        train_dataset, eval_dataset: Map-style datasets; `eval_dataset` may be a dict of several.
    """

    hub_model_id: str | None = None
    push_error: str | None = None

    def __init__(self, model, args: FaultTolerantArguments, train_dataset=None, eval_dataset=None, **kwargs):
        if isinstance(args, PretrainingArguments):
            torch.set_float32_matmul_precision(args.matmul_precision)
        super().__init__(
            model=model,
            args=args,
            train_dataset=None if train_dataset is None else EpochDataset(train_dataset),
            eval_dataset=eval_dataset,
            **kwargs,
        )
        self.add_callback(SetEpoch())
        # Makes the stock training_step leave the loss as compute_loss scaled it.
        self.model_accepts_loss_kwargs = True
        self.can_return_loss = True
        self._eval_batch_size = args.per_device_eval_batch_size
        sets = eval_dataset.values() if isinstance(eval_dataset, dict) else [eval_dataset]
        for dataset in sets:  # an error now rather than at the first evaluation
            self._fit_evaluation_batches(dataset)

    def _get_train_sampler(self, train_dataset=None) -> EpochSampler:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        return EpochSampler(len(dataset), self.samples_per_step, self.args.order_seed, shard_sizes=dataset.shard_sizes)

    @property
    def samples_per_step(self) -> int:
        """Samples of one optimizer step: processes x micro-batch x accumulation."""
        return self.args.train_batch_size * self.args.world_size * self.args.gradient_accumulation_steps

    def get_eval_dataloader(self, eval_dataset=None):
        if eval_dataset is None:
            eval_dataset = self.eval_dataset
        elif isinstance(eval_dataset, str):
            eval_dataset = self.eval_dataset[eval_dataset]
        self._fit_evaluation_batches(eval_dataset)
        if eval_dataset is not None:
            eval_dataset = EpochDataset(eval_dataset)
            eval_dataset = Subset(eval_dataset, evaluation_order(len(eval_dataset)))
        return super().get_eval_dataloader(eval_dataset)

    # ---- exact means ----

    @property
    def loss_terms(self) -> Terms:
        """Weight and unit of each component of the loss."""
        return self.model.loss_terms

    def model_inputs(self, inputs: dict[str, Tensor]) -> dict[str, Any]:
        """Arguments of the model; the distillation trainer adds the teacher's states."""
        return inputs

    def compute_means(self, model, inputs: dict[str, Tensor]) -> tuple[dict[str, Tensor], Any]:
        """Runs the model; returns each component's mean over the micro-batch, and the outputs."""
        outputs = model(**self.model_inputs(inputs))
        return outputs.losses, outputs

    def get_batch_samples(self, epoch_iterator, num_batches: int, device: torch.device) -> tuple[list[dict], Tensor]:
        """Returns the micro-batches of one optimizer step, and its items `[4]` on all ranks (see `ITEMS`)."""
        batches = list(islice(epoch_iterator, num_batches))
        items = torch.stack([count_items(batch) for batch in batches]).sum(0).to(device)
        return batches, self.accelerator.reduce(items, "sum")

    def compute_loss(self, model, inputs, return_outputs: bool = False, num_items_in_batch: Tensor | None = None):
        items = count_items(inputs)
        means, outputs = self.compute_means(model, inputs)
        # Outside `get_batch_samples` (the stock evaluation gives a scalar), the batch counts as one step.
        own_step = num_items_in_batch is None or num_items_in_batch.dim() == 0
        step_items = self.accelerator.reduce(items, "sum") if own_step else num_items_in_batch
        loss = scaled_loss(means, self.loss_terms, items, step_items, self.accelerator.num_processes)
        if model.training:
            self.record_losses(means)
            add_to_totals(self._totals, means, self.loss_terms, items)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            means = means_of_totals(self._totals, self.accelerator)
            logs.update({f"{name}_loss": value for name, value in means.items() if name != "loss"})
            self._totals = {}
        super().log(logs, start_time)

    # ---- evaluation ----

    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ) -> EvalLoopOutput:
        """Computes exact means of every component over the evaluation data, the same on any number of ranks.

        Masks are always those of epoch 0. Contrastive components see the negatives of their batch.
        """
        model = self._prepare_for_evaluation()
        self.callback_handler.eval_dataloader = dataloader
        size, batch_size = len(dataloader.dataset), self.args.eval_batch_size
        totals: dict[str, Tensor] = {}
        collected: list[dict[str, Tensor]] = []
        for step, batch in enumerate(dataloader):
            batch = self._prepare_inputs(batch)
            # Ranks take complete batches in turn; batches past the end repeat samples from the beginning.
            first = (step * self.args.world_size + self.args.process_index) * batch_size
            real = min(max(size - first, 0), len(batch["input_ids"]))
            kept = self.first_samples(batch, real) if real else batch
            with torch.no_grad(), self.compute_loss_context_manager():
                means, outputs = self.compute_means(model, kept)
            add_to_totals(totals, means, self.loss_terms, count_items(kept) * (real > 0))
            collected.append(self.collect(outputs, kept, real))
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        means = means_of_totals(totals, self.accelerator)
        metrics = {f"{name}_loss": value for name, value in means.items()}
        metrics["loss"] = sum(weight * means[name] for name, (weight, _) in self.loss_terms.items())
        if "mlm" in means:
            metrics["perplexity"] = float(torch.tensor(means["mlm"]).exp())
        metrics |= self.collected_metrics(collected)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=size)

    def predict(self, *args, **kwargs):
        """Not supported: this model is trained for its states, not for predictions.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            f"{type(self).__name__}.predict is not supported: call evaluate(dataset) for losses and metrics, or the "
            "model itself for its outputs"
        )

    def _prepare_for_evaluation(self):
        """The model in eval mode, as training wrapped it, or wrapped only for evaluation."""
        if not any(self.accelerator.unwrap_model(model) is self.model for model in self.accelerator._models):
            if is_deepspeed_zero3_enabled():
                raise ValueError("ZeRO-3 cannot evaluate before training: train first, or evaluate without DeepSpeed")
            self.model.to(self.args.device)  # accelerate does not under FSDP
            self.model_wrapped = self.accelerator.prepare_model(self.model, evaluation_mode=True)
        self.model_wrapped.eval()
        return self.model_wrapped

    def evaluation_groups(self, dataset) -> list | None:
        """Group of each sample, within which samples are not negatives; `None` for a model without contrast."""
        return None

    def _fit_evaluation_batches(self, dataset) -> None:
        """Sets the evaluation batch size so that every batch of `dataset` holds a negative."""
        size = self._eval_batch_size
        groups = None if dataset is None else self.evaluation_groups(dataset)
        if groups is not None:
            size = batch_size_with_negatives([groups[i] for i in evaluation_order(len(groups))], size)
        if size != self._eval_batch_size:
            logger.warning_once(
                f"Evaluating {size} samples per batch instead of {self._eval_batch_size}, so that each batch holds a "
                "negative."
            )
        self.args.per_device_eval_batch_size = size

    def first_samples(self, batch: dict[str, Tensor], count: int) -> dict[str, Tensor]:
        """Returns the first `count` samples of a batch."""
        return {name: value[:count] for name, value in batch.items()}

    def collect(self, outputs, batch: dict[str, Tensor], real: int) -> dict[str, Tensor]:
        """Keeps what [`collected_metrics`] needs of an evaluation batch: nothing by default.

        Args:
            outputs: Outputs of the model.
            batch: The batch, as the collator returned it.
            real: Number of samples at the beginning to keep; the others repeat samples of another batch.

        Returns:
            Tensors by name.
        """
        return {}

    def collected_metrics(self, collected: list[dict[str, Tensor]]) -> dict[str, float]:
        """Computes metrics over all evaluation data, from what [`collect`] returned for each batch of this rank."""
        return {}

    # ---- publishing ----

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves the finished model with tokenizer and card; with `push_to_hub`, also pushes `args.output_dir`.

        Args:
            output_dir: Where to save; default: `args.output_dir`.

        Raises:
            ValueError: The folder holds a finished run of another trainer.
            NonFiniteError: A weight is not finite.
        """
        if _internal_call:
            super().save_model(output_dir, _internal_call=True)
            return
        folder = Path(output_dir or self.args.output_dir)
        self._save_finished(folder)
        if self.args.push_to_hub and folder == Path(self.args.output_dir):
            self._push("Model save")

    def _save_finished(self, folder: Path) -> None:
        """Writes model, tokenizer and card next to the files in `folder`, then moves them into it."""
        self.claim_folder(folder)
        self.raise_if_non_finite(weights=True)
        part, error = folder / ".model.part", None
        try:
            super().save_model(str(part), _internal_call=True)
            if self.args.should_save:
                self.write_card(part)
        except Exception as caught:
            error = caught
        what = f"{folder} has no new model, its checkpoints are untouched"
        raise_if_any_rank_failed(what, error)
        if self.args.should_save:
            try:
                move_into(part, folder)
            except OSError as caught:
                error = caught
        raise_if_any_rank_failed(what, error)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Saves model and tokenizer, without pickled arguments: `run.json` holds the settings."""
        if self.args.should_save:
            output_dir = output_dir or self.args.output_dir
            model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
            with saves_on_every_machine(model) if self.args.save_on_each_node else nullcontext():
                model.save_pretrained(output_dir, state_dict=state_dict)
            if self.processing_class is not None:
                self.processing_class.save_pretrained(output_dir)

    def write_card(self, folder: Path) -> None:
        """Writes `README.md` into a finished model's folder: nothing by default."""

    def create_model_card(self, *args, **kwargs) -> None:
        """Writes this package's card, from the run as it is now, in place of the stock one; all processes call it."""
        self.claim_folder(self.args.output_dir)
        if self.is_world_process_zero():
            self.write_card(Path(self.args.output_dir))

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        private = self.args.hub_private_repo if private is None else private
        self.hub_model_id = make_repository(self.args, self.repository_name, token or self.args.hub_token, private)

    @property
    def repository_name(self) -> str:
        """`user/name` of the model on the Hub, or its name in the user's own namespace."""
        return self.hub_model_id or self.args.hub_model_id or Path(self.args.output_dir).resolve().name

    def push_to_hub(
        self,
        commit_message: str = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
    ) -> CommitInfo | None:
        """Saves the finished model to `args.output_dir` and pushes it; all processes call it.

        If the push fails, the error is logged and kept in `push_error` with the command that pushes the folder.

        Args:
            commit_message: Message of the commit.
            blocking: Must be true.
            token: Token with write access; default: `args.hub_token`, or that of `hf auth login`.
            revision: Branch, which is created if it does not exist; default: `args.hub_revision`, or main.
            private: Whether a new repository is private; default: `args.hub_private_repo`.

        Returns:
            The commit on the main process; `None` on the others or if the push failed.

        Raises:
            ValueError: `blocking` is false, or `args.output_dir` holds a finished run of another trainer.
        """
        if not blocking:
            raise ValueError("blocking must be true: the push ends before push_to_hub returns; leave it out")
        self._save_finished(Path(self.args.output_dir))
        return self._push(commit_message, token, revision, private)

    def _push(self, commit_message: str, token=None, revision=None, private=None) -> CommitInfo | None:
        args, self.push_error = self.args, None
        if not self.is_world_process_zero():
            return None
        self.callback_handler.on_push_begin(args, self.state, self.control)
        token, revision = token or args.hub_token, revision or args.hub_revision
        private = args.hub_private_repo if private is None else private
        try:
            commit = push(args.output_dir, self.repository_name, commit_message, token, private, revision)
        except PushError as error:
            self.push_error = str(error)
            logger.error(self.push_error)
            return None
        run_dir.log_on_main(args, f"Pushed to {commit.repo_url}")
        return commit

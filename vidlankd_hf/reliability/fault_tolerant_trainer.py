"""Fault-tolerant `Trainer`: checksummed checkpoints, exact resuming, preemption, NaN detection, watchdog.

Each concept has a file. `trainer_hooks` lists the private parts of `transformers.Trainer` in use. docs/reliability.md
states the guarantees.
"""

import json
import time
from pathlib import Path

import torch
from transformers import PreTrainedConfig, Trainer, TrainerCallback, TrainerState

from ..data.fingerprint import data_fingerprint, stable_hash
from ..data.vocabulary import tokenizer_fingerprint
from ..models.cpu_kernels import use_cpu_attention, use_cpu_dropout
from ..utils.signals import survive_stop_signals
from . import run_dir
from .arguments import FaultTolerantArguments
from .checkpointing import best_checkpoint, checkpoint_to_resume, expected_bytes, remove_leftovers, save_checkpoint
from .folder_lock import lock_folder
from .launch import end_run
from .manifest import RECORD, STATE, Layout
from .nan_detection import NonFiniteDetector, first_bad, stop_with_report, weights_are_finite
from .out_of_memory import explain_out_of_memory, worker_advice, worker_died
from .preemption import EvaluationStopped, Preempted, StopRequests
from .ranks import refuse_if_any_rank_refuses
from .same_run import apply_to_optimizer
from .trainer_options import TRAINER_REFUSED, check_trainer_arguments
from .watchdog import Watchdog


def ignore_tied_weights(model: torch.nn.Module, incompatible_keys) -> None:
    """Hook for `load_state_dict`: a tied weight that a file leaves out is not missing if its source is there."""
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    missing = incompatible_keys.missing_keys
    missing[:] = [name for name in missing if name not in tied or tied[name] in missing]


class FaultTolerantTrainer(Trainer):
    """`transformers.Trainer` for long runs; base of [`BaseTrainer`].

    A trainer never overwrites a finished run of another process: `train`, `save_model` and `create_model_card` refuse
    a folder whose `run.json` says `finished`, or that has weights but no `run.json`. Folders that this
    trainer itself has written to are exempt. Evaluation needs no folder.
    """

    def __init__(self, **kwargs):
        check_trainer_arguments(kwargs, FaultTolerantArguments)
        super().__init__(**kwargs)
        if self.args.device.type == "cpu":
            use_cpu_dropout(self.model)
            use_cpu_attention(self.model)
        self.model.register_load_state_dict_post_hook(ignore_tied_weights)
        self._totals: dict[str, torch.Tensor] = {}
        self._stops: StopRequests | None = None
        self._detector: NonFiniteDetector | None = None
        self._record: dict = {}
        self._resumed_from: str | None = None
        self._best: str | None = None  # at the beginning of a resumed run
        self._saved_step = self._micro_step = -1
        self._evaluation_due = self._between_epochs = False
        self._own_folders: set[Path] = set()
        self._staging: str | None = None  # where a checkpoint is being written
        self._watchdog = Watchdog(self.args.hang_timeout)
        self.add_callback(self._watchdog)
        self.add_callback(_TrainingEvents(self))

    def hyperparameter_search(self, *args, **kwargs):
        """Not supported: a search needs `model_init`.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"hyperparameter_search is not supported: {TRAINER_REFUSED['model_init']}")

    def get_train_dataloader(self):
        return survive_stop_signals(super().get_train_dataloader())

    def get_eval_dataloader(self, eval_dataset=None):
        return survive_stop_signals(super().get_eval_dataloader(eval_dataset))

    def get_test_dataloader(self, test_dataset):
        return survive_stop_signals(super().get_test_dataloader(test_dataset))

    # ---- training ----

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """Trains as [`transformers.Trainer.train`] does, safe against interruptions.

        Args:
            resume_from_checkpoint: A checkpoint of this package, which is verified; `True`: the newest complete one.

        Raises:
            Preempted: A signal told one process to stop; all have stopped, and a checkpoint is saved.
            NonFiniteError: A loss, gradient or weight is not finite.
            torch.OutOfMemoryError: Out of memory; the message says what to lower.
            ValueError: The checkpoint is incomplete or of another run (see `same_run`), `output_dir` holds a finished
                run, another run uses it, or not all processes see it.
        """
        folder = self.args.output_dir
        self.claim_folder(folder)
        lock_folder(self.args)
        checkpoint = checkpoint_to_resume(resume_from_checkpoint, folder, self.args.should_save)
        data, parts = self._data_fingerprints(), self.fingerprints()
        self._record = run_dir.record(self.args, data, parts, self.configs())
        if self.args.should_save:
            remove_leftovers(folder)
            run_dir.add_record(Path(folder), self._record)
        if checkpoint is not None:
            run_dir.compare_records(self.args, Path(checkpoint) / RECORD, self._record)
        find_best = checkpoint is not None and self.args.load_best_model_at_end
        self._best = best_checkpoint(checkpoint, self.args.should_save) if find_best else None
        self._resumed_from, self._saved_step, self._detector = checkpoint, -1, None
        try:
            with StopRequests() as self._stops, explain_out_of_memory(self.args), self._watchdog.running():
                return super().train(resume_from_checkpoint=checkpoint, **kwargs)
        except (Preempted, EvaluationStopped):  # EvaluationStopped before the first step: there is nothing new to save
            self.callback_handler.on_train_end(self.args, self.state, self.control)
            step, newest = self.state.global_step, run_dir.newest_name(folder)
            resume = f"the same command resumes from {newest}" if newest else "nothing was trained yet"
            run_dir.log_on_main(self.args, f"Stopped after step {step}: {resume}.")
            end_run(self, exit_code=self.args.preempt_exit_code)
            raise Preempted(self.args.preempt_exit_code) from None
        except (RuntimeError, OSError, EOFError) as error:
            if not worker_died(error):
                raise
            raise RuntimeError(worker_advice(self.state.global_step, error)) from error
        finally:
            self._stops = None

    def claim_folder(self, folder: str | Path) -> None:
        """Checks that writing to `folder` overwrites no finished run; all processes call it.

        Raises:
            ValueError: The folder holds a finished run that this trainer did not write.
        """
        folder = Path(folder).resolve()
        if folder in self._own_folders:
            return
        finished = self.args.should_save and run_dir.holds_finished_run(folder)
        refuse_if_any_rank_refuses(run_dir.finished_message(folder) if finished else "")
        self._own_folders.add(folder)

    def set_initial_training_values(self, args, dataloader):
        """As in [`transformers.Trainer`], but with 0 epochs if the run resumes from its last step.

        The stock Trainer would then train one more step.
        """
        epochs, *values, max_steps = super().set_initial_training_values(args, dataloader)
        if self._resumed_from is not None:
            state = TrainerState.load_from_json(str(Path(self._resumed_from) / STATE))
            epochs = 0 if state.global_step >= max_steps else epochs
        return (epochs, *values, max_steps)

    def _maybe_log_save_evaluate(self, tr_loss, grad_norm, model, trial, *args, **kwargs):
        """Runs between two steps: the only place, besides an evaluation batch, where training stops on request."""
        if not self._between_epochs:
            self._record_gradient(grad_norm)
        try:
            super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *args, **kwargs)
        except EvaluationStopped:
            self._evaluation_due = True
        # The end of an epoch completes before the run may stop: a resumed run begins with the next epoch.
        last_of_epoch = float(self.state.epoch).is_integer() or self.state.global_step >= self.state.max_steps
        if (not last_of_epoch or self._between_epochs) and self._stops.should_stop():
            if self._saved_step != self.state.global_step:
                self._save_checkpoint(model, trial)
            raise Preempted

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        """Evaluates as [`transformers.Trainer.evaluate`] does, with the same random numbers each time.

        The random state of training does not change.
        """
        device = self.args.device
        with (
            explain_out_of_memory(self.args, evaluating=True),
            self._watchdog.running(),
            torch.random.fork_rng([device] if device.type == "cuda" else []),
        ):
            torch.manual_seed(self.args.seed)
            return super().evaluate(*args, **kwargs)

    # ---- values that are not finite ----

    def record_losses(self, losses: dict[str, torch.Tensor]) -> None:
        """Records whether the losses of a micro-batch, by name, are finite, without waiting for the device."""
        if self._detector is None:
            self._detector = NonFiniteDetector(list(losses), self.args.device)
        self._detector.record_losses(list(losses.values()), self._position(self.state.global_step))

    def _record_gradient(self, grad_norm: torch.Tensor | float | None) -> None:
        """Records the gradient norm of the step that has just ended."""
        if self._detector is not None and not self.args.fp16:  # the fp16 scaler skips steps that overflow
            end = self._position(self.state.global_step - 1)
            self._detector.record_gradient(grad_norm, end - self._micro_step, end)
        self._micro_step = -1

    def _position(self, steps: int) -> int:
        return steps * self.args.gradient_accumulation_steps + self._micro_step

    def training_step(self, *args, **kwargs):
        self._micro_step = (self._micro_step + 1) % self.args.gradient_accumulation_steps
        return super().training_step(*args, **kwargs)

    def raise_if_non_finite(self, weights: bool = False) -> None:
        """Stops the run if a loss or gradient since its beginning, or a weight now, is not finite.

        Args:
            weights: Whether to check the weights too.

        Raises:
            NonFiniteError: On all processes.
        """
        if self._detector is not None:
            bad = first_bad(self.accelerator.gather(self._detector.first[None]).cpu(), self._detector.names)
            if bad is not None:
                stop_with_report(self, self._detector, *bad)
        if weights:
            finite = weights_are_finite(self.model).to(self.args.device)
            damaged = (~self.accelerator.gather(finite[None])).nonzero().flatten().tolist()
            if damaged:
                stop_with_report(self, self._detector, None, [(rank, "weights") for rank in damaged])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.is_in_train:
            self.raise_if_non_finite()
        super().log(logs, start_time)

    # ---- checkpoints ----

    def _save_checkpoint(self, model, trial) -> None:
        self.raise_if_non_finite(weights=True)
        self._watchdog.heartbeat()
        folder, step, best = Path(self._get_output_dir(trial)), self.state.global_step, self.state.best_global_step
        if best and (best == step or (folder / f"checkpoint-{best}").exists()):
            self.state.best_model_checkpoint = str(folder / f"checkpoint-{best}")
        save_checkpoint(
            folder / f"checkpoint-{step}",
            lambda part: self._write_checkpoint(Path(part), model, trial),
            main_process=self.args.should_save,
            expected_bytes=expected_bytes(self.model, sharded=self.is_deepspeed_enabled),
            keep=self.args.save_total_limit,
            best=self.state.best_model_checkpoint,
            layout=self._layout,
            shared=self._own_files() if self.args.save_on_each_node else (),
        )
        self._saved_step = step
        self._watchdog.heartbeat()

    def _write_checkpoint(self, part: Path, model, trial) -> None:
        """Writes what the stock Trainer writes, each process its part, and what exact resuming needs in addition."""
        best, self._staging = self.state.best_model_checkpoint, str(part.parent)
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.state.best_model_checkpoint, self._staging = best, None
        _, log_state = self._own_files()
        (part / log_state).write_text(json.dumps(self._log_state()) + "\n")
        if self.args.should_save:
            (part / RECORD).write_text(json.dumps(self._record, indent=2) + "\n")
            run_dir.copy_run_file(Path(self.args.output_dir), part)
            self.state.save_to_json(str(part / STATE))  # the stock one names the best checkpoint by its staging folder

    def _get_output_dir(self, trial) -> str:
        return self._staging or super()._get_output_dir(trial)

    @property
    def _layout(self) -> Layout:
        """What a checkpoint of this run must contain."""
        plugin = self.args.deepspeed_plugin
        sharding = f"zero{plugin.zero_stage}" if plugin is not None else "fsdp" if self.is_fsdp_enabled else "none"
        return Layout(self.args.world_size, sharding, self.accelerator.scaler is not None)

    def _own_files(self) -> tuple[str, str]:
        """The files of a checkpoint that each process writes: its random state and its log state."""
        rank = self.args.process_index
        return self._layout.rng_name(rank), self._layout.log_state_name(rank)

    def _log_state(self) -> dict:
        """Sums since the last log, with which the next log of a resumed run equals that of an uninterrupted run."""
        return {
            "loss": self._tr_loss.item(),
            "components": {name: total.tolist() for name, total in self._totals.items()},
            "last_logged_step": self._globalstep_last_logged,
            "evaluation_due": self._evaluation_due,
        }

    def restore_log_state(self) -> None:
        """Restores the sums in the checkpoint that training resumes from, and runs the evaluation that was stopped."""
        self._evaluation_due, self._micro_step = False, -1
        path = Path(self._resumed_from or "") / self._own_files()[1]
        if self._resumed_from is None or not path.is_file():  # written by another number of processes
            return
        state, device = json.loads(path.read_text()), self.args.device
        self._tr_loss += state["loss"]
        self._totals = {
            name: torch.tensor(total, dtype=torch.double, device=device) for name, total in state["components"].items()
        }
        self._globalstep_last_logged = state["last_logged_step"]
        if state["evaluation_due"]:
            self.control.should_evaluate = True
            epoch, now = self.state.epoch, time.time()
            super()._maybe_log_save_evaluate(self._tr_loss, None, self.model_wrapped, None, epoch, None, now)

    # ---- what made the run ----

    def fingerprints(self) -> dict[str, str | None]:
        """Fingerprints of what determines the run besides its data and settings: here the tokenizer."""
        tokenizer = self.processing_class
        return {"tokenizer": tokenizer_fingerprint(tokenizer) if hasattr(tokenizer, "get_vocab") else None}

    def configs(self) -> dict[str, PreTrainedConfig]:
        """Configurations of the models that the run depends on."""
        return {"model_config": self.model.config}

    def _data_fingerprints(self) -> dict[str, str | None]:
        held_out = self.eval_dataset
        if isinstance(held_out, dict) and not hasattr(held_out, "content_fingerprint"):
            held_out = stable_hash({name: data_fingerprint(dataset) for name, dataset in held_out.items()})
        elif held_out is not None:
            held_out = data_fingerprint(held_out)
        else:
            held_out = "none"
        return {"train": data_fingerprint(self.train_dataset), "eval": held_out}


class _TrainingEvents(TrainerCallback):
    """Tells the trainer at which point of its loop it is, and stops an evaluation on request."""

    def __init__(self, trainer: FaultTolerantTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, optimizer=None, lr_scheduler=None, **kwargs):
        self.trainer.restore_log_state()
        if self.trainer._resumed_from is not None:
            state.best_model_checkpoint = self.trainer._best or state.best_model_checkpoint
            apply_to_optimizer(args, optimizer, lr_scheduler)

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.trainer._between_epochs = False

    def on_epoch_end(self, args, state, control, **kwargs):
        self.trainer._between_epochs = True

    def on_prediction_step(self, args, state, control, **kwargs):
        stops = self.trainer._stops
        if stops is not None and stops.should_stop():
            raise EvaluationStopped

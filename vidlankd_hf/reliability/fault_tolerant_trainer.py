"""The Trainer's part that keeps a run of days: checkpoints, resuming, stopping when told to, noticing what is wrong.

Each concept is in a file of its own: `checkpoints`, `preemption`, `finite`, `out_of_memory`, `watchdog`. What is
promised, and what not, is in docs/reliability.md.
"""

import json
import traceback
from pathlib import Path

import torch
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState

from ..data.fingerprint import data_fingerprint
from ..models.cpu_kernels import use_cpu_attention, use_cpu_dropout
from . import run_dir
from .arguments import FaultTolerantArguments
from .checkpointing import checkpoint_to_resume, expected_bytes, remove_leftovers, save_checkpoint
from .launch import end_run
from .nan_detection import NonFiniteDetector, NonFiniteError, first_bad, weights_are_finite
from .out_of_memory import explain_out_of_memory
from .preemption import EvaluationStopped, Preempted, StopRequests
from .trainer_options import TRAINER_REFUSED, check_trainer_arguments
from .watchdog import Watchdog

RECORD = "run_record.json"
WORKER_DIED = ("exited unexpectedly", "is killed by signal")


def worker_died(error: Exception) -> bool:
    """Whether an error is what torch's loader raises for a dead worker, or for a batch that died with its worker."""
    if isinstance(error, RuntimeError):
        return "DataLoader worker" in str(error) and any(words in str(error) for words in WORKER_DIED)
    # The thread that pins memory hands its error on as text.
    return "resource_sharer.py" in "".join(traceback.format_exception(error))


class FaultTolerantTrainer(Trainer):
    """Base of [`PublishingTrainer`]."""

    def __init__(self, **kwargs):
        check_trainer_arguments(kwargs, FaultTolerantArguments)
        super().__init__(**kwargs)
        if self.args.device.type == "cpu":
            use_cpu_dropout(self.model)
            use_cpu_attention(self.model)
        self._totals: dict[str, torch.Tensor] = {}
        self._stops: StopRequests | None = None
        self._watchdog = Watchdog(self.args.hang_timeout)
        self._latch: NonFiniteDetector | None = None
        self._record: dict = {}
        self._saved_step = self._micro_step = -1
        self._evaluation_due = self._between_epochs = False
        self.add_callback(_Places(self))

    def hyperparameter_search(self, *args, **kwargs):
        """Not supported: a search needs `model_init`.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"hyperparameter_search is not supported: {TRAINER_REFUSED['model_init']}")

    # ---- the whole training ----

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """As [`transformers.Trainer.train`].

        Args:
            resume_from_checkpoint: A checkpoint of this package, which is verified; `True` for the newest whole one.

        Raises:
            Preempted: All processes were told to stop by a signal to one, and a checkpoint was written.
            NonFiniteError: A loss, gradient or weight was not finite.
            torch.OutOfMemoryError: With what to lower.
            ValueError: The checkpoint is not whole, or is of other training data.
        """
        folder, main = self.args.output_dir, self.is_world_process_zero()
        checkpoint = checkpoint_to_resume(resume_from_checkpoint, folder, main)
        if self.args.should_save:
            remove_leftovers(folder)
        self._record = run_dir.record(self.args, {"train": data_fingerprint(self.train_dataset)})
        if main:
            run_dir.add_record(Path(folder), self._record)
        if checkpoint is not None:
            self._compare_records(Path(checkpoint))
        self._resumed_from, self._saved_step, self._latch = checkpoint, -1, None
        try:
            with StopRequests() as self._stops, explain_out_of_memory(self.args):
                self._watchdog.heartbeat()
                return super().train(resume_from_checkpoint=checkpoint, **kwargs)
        except (Preempted, EvaluationStopped):  # the latter before the first step: nothing is new
            self.callback_handler.on_train_end(self.args, self.state, self.control)
            run_dir.log_on_main(
                self.args, f"Stopped after step {self.state.global_step}; the same command goes on from there."
            )
            end_run(self, exit_code=self.args.preempt_exit_code)
            raise Preempted(self.args.preempt_exit_code) from None
        except (RuntimeError, OSError, EOFError) as error:
            if not worker_died(error):
                raise
            raise RuntimeError(
                f"a data loader worker died at step {self.state.global_step} ({error!r}). Killed workers are mostly "
                "those of a machine whose memory ran out: lower --dataloader_num_workers or "
                "--dataloader_prefetch_factor, and start the same command again"
            ) from error
        finally:
            self._stops = None
            self._watchdog.stop()

    def _run_epoch(self, *, epoch, train_dataloader, **kwargs):
        if self.state.global_step >= self.state.max_steps:  # resumed from the last checkpoint: nothing is left to do
            self.control.should_training_stop = True
            return None
        # accelerate does not reach it below the wrappers of several processes and of skipped batches: an epoch resumed
        # in its middle would be the first one's.
        sampler = train_dataloader.batch_sampler
        while hasattr(sampler, "batch_sampler"):
            sampler = sampler.batch_sampler
        if hasattr(sampler.sampler, "set_epoch"):
            sampler.sampler.set_epoch(epoch)
        return super()._run_epoch(epoch=epoch, train_dataloader=train_dataloader, **kwargs)

    def _maybe_log_save_evaluate(self, *args, **kwargs):
        """Between two steps; the one place, beside evaluation's batches, where training stops when told to."""
        self._watchdog.heartbeat()
        try:
            super()._maybe_log_save_evaluate(*args, **kwargs)
        except EvaluationStopped:
            self._evaluation_due = True
        # What an epoch ends with is done before the run may stop: a resumed one begins with the next epoch.
        last_of_epoch = float(self.state.epoch).is_integer() or self.state.global_step >= self.state.max_steps
        if (not last_of_epoch or self._between_epochs) and self._stops.should_stop():
            if self._saved_step != self.state.global_step:
                self._save_checkpoint(self.model_wrapped, None)
            raise Preempted

    def on_evaluation_batch_end(self) -> None:
        """Called by the evaluation loop after each batch."""
        self._watchdog.heartbeat()
        if self._stops is not None and self._stops.should_stop():
            raise EvaluationStopped

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        """As [`transformers.Trainer.evaluate`]; draws the same each time, and training's draws stay as they are."""
        device = self.args.device
        with (
            explain_out_of_memory(self.args, evaluating=True),
            torch.random.fork_rng([device] if device.type == "cuda" else []),
        ):
            torch.manual_seed(self.args.seed)
            return super().evaluate(*args, **kwargs)

    # ---- values that are not finite ----

    def record_losses(self, losses: dict[str, torch.Tensor]) -> None:
        """Called with each micro-batch's losses, by name; nothing is read from the device."""
        if self._latch is None:
            self._latch = NonFiniteDetector(list(losses), self.args.device)
        self._latch.record_losses(list(losses.values()), self._position)

    @property
    def _position(self) -> int:
        return self.state.global_step * self.args.gradient_accumulation_steps + self._micro_step

    def training_step(self, *args, **kwargs):
        self._micro_step = (self._micro_step + 1) % self.args.gradient_accumulation_steps
        return super().training_step(*args, **kwargs)

    def _get_grad_norm(self, model, grad_norm=None):
        norm = super()._get_grad_norm(model, grad_norm)
        if not self.args.fp16:  # whose scaler tries a scale too large, and leaves the step out
            self._latch.record_gradient(norm, self._position - self._micro_step, self._position)
        self._micro_step = -1
        return norm

    def raise_if_non_finite(self, weights: bool = False) -> None:
        """Stops the run if a loss or gradient since its beginning, or a weight now, is not finite.

        Raises:
            NonFiniteError: On every process alike.
        """
        if self._latch is not None:
            bad = first_bad(self.accelerator.gather(self._latch.first[None]).cpu(), self._latch.names)
            if bad is not None:
                self._stop_with_report(*bad)
        if weights:
            finite = weights_are_finite(self.model).to(self.args.device)
            damaged = (~self.accelerator.gather(finite[None])).nonzero().flatten().tolist()
            if damaged:
                self._stop_with_report(None, [(rank, "weights") for rank in damaged])

    def _stop_with_report(self, position: int | None, bad: list[tuple[int, str]]) -> None:
        accumulation, ranks = self.args.gradient_accumulation_steps, sorted({rank for rank, _ in bad})
        step = self.state.global_step if position is None else position // accumulation + 1
        components = sorted({name for _, name in bad})
        micro_steps = [] if position is None else [position % accumulation]
        if components == ["gradient"]:
            micro_steps, ranks = range(accumulation), range(self.args.world_size)
        samples = {rank: [i for m in micro_steps for i in self._sample_ids(step, m, rank)] for rank in ranks}
        command = f"{run_dir.command()} --logging_steps 1 --logging_strategy steps"
        report = {
            "step": step,
            "components": components,
            "sample_ids_of_processes": samples,
            "gradient_norms": self._latch.norms[-step:].tolist() if self._latch is not None else [],
            "last_checkpoint": run_dir.newest_name(self.args.output_dir),
            "replay": command,
        }
        path = Path(self.args.output_dir) / f"nonfinite-step-{step}.json"
        message = (
            f"{', '.join(components)} not finite {'by' if position is None else 'in'} step {step}, of the samples "
            f"{samples}. Report: {path}. No checkpoint holds it. To replay it from the last one "
            f"({report['last_checkpoint']}):\n    {command}"
        )
        if self.is_world_process_zero():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(report, indent=2) + "\n")
        raise NonFiniteError(message)

    def _sample_ids(self, step: int, micro_step: int, rank: int) -> list[int]:
        """Which samples a process had in a micro-batch: the order is known, so nothing has to be kept for this."""
        sampler, args = self._get_train_sampler(), self.args
        batch = (step - 1) * args.gradient_accumulation_steps + micro_step
        batches = len(sampler) // (args.train_batch_size * args.world_size)
        epoch, batch = divmod(batch, batches)
        sampler.set_epoch(epoch)
        first = (batch * args.world_size + rank) * args.train_batch_size
        return [key % sampler.size for key in list(sampler)[first : first + args.train_batch_size]]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.is_in_train:
            self.raise_if_non_finite()
        super().log(logs, start_time)

    # ---- checkpoints ----

    def _save_checkpoint(self, model, trial) -> None:
        self.raise_if_non_finite(weights=True)
        self._watchdog.heartbeat()
        self.store_flos()
        folder = Path(self._get_output_dir(trial))
        if self.state.best_global_step:
            best = folder / f"checkpoint-{self.state.best_global_step}"
            if best.exists() or self.state.best_global_step == self.state.global_step:
                self.state.best_model_checkpoint = str(best)
        checkpoint = folder / f"checkpoint-{self.state.global_step}"
        save_checkpoint(
            checkpoint,
            self._write_checkpoint,
            main_process=self.args.should_save,
            expected_bytes=expected_bytes(self.model, sharded=self.is_deepspeed_enabled),
            keep=self.args.save_total_limit,
            best=self.state.best_model_checkpoint,
        )
        self._saved_step = self.state.global_step
        self._watchdog.heartbeat()

    def _write_checkpoint(self, folder: str) -> None:
        """What the stock Trainer writes, each process its part, and what is logged next."""
        self.save_model(folder, _internal_call=True)
        if not self.args.save_only_model:
            self._save_optimizer_and_scheduler(folder)
            self._save_scaler(folder)
            self._save_rng_state(folder)
        (Path(folder) / self._log_state_name()).write_text(json.dumps(self._log_state()) + "\n")
        if self.args.should_save:
            stateful = [c for c in (*self.callback_handler.callbacks, self.control) if isinstance(c, ExportableState)]
            for callback in stateful:
                name = type(callback).__name__
                if isinstance(self.state.stateful_callbacks.get(name), list):
                    self.state.stateful_callbacks[name].append(callback.state())
                else:
                    self.state.stateful_callbacks[name] = callback.state()
            (Path(folder) / RECORD).write_text(json.dumps(self._record, indent=2) + "\n")
            self.state.save_to_json(str(Path(folder) / "trainer_state.json"))

    def _log_state_name(self) -> str:
        return f"log_state_{self.args.process_index}_of_{self.args.world_size}.json"

    def _log_state(self) -> dict:
        """Sums since the last log, so that the next one of a resumed run is that of an uninterrupted one."""
        return {
            "loss": self._tr_loss.item(),
            "components": {name: total.tolist() for name, total in self._totals.items()},
            "last_logged_step": self._globalstep_last_logged,
            "evaluation_due": self._evaluation_due,
        }

    def _restore_log_state(self) -> None:
        path = Path(self._resumed_from or "") / self._log_state_name()
        if self._resumed_from is None or not path.is_file():  # it was of another number of processes
            return
        state, device = json.loads(path.read_text()), self.args.device
        self._tr_loss += state["loss"]
        self._totals = {
            name: torch.tensor(total, dtype=torch.double, device=device) for name, total in state["components"].items()
        }
        self._globalstep_last_logged = state["last_logged_step"]
        if state["evaluation_due"]:
            self._determine_best_metric(self._evaluate(None, None), None)

    def _compare_records(self, checkpoint: Path) -> None:
        path = checkpoint / RECORD
        recorded = json.loads(path.read_text()) if path.is_file() else self._record
        was, now = recorded["data"]["train"], self._record["data"]["train"]
        if None not in (was, now) and was != now:
            raise ValueError(
                f"{checkpoint} was trained on other data (fingerprint {was[:12]}, now {now[:12]}): give the data it "
                "began with, or choose another --output_dir"
            )
        changed = [
            f"{name} {recorded['versions'].get(name)} (now {version})"
            for name, version in self._record["versions"].items()
            if recorded["versions"].get(name) != version
        ]
        if changed:
            run_dir.log_on_main(
                self.args, f"{checkpoint} was written by {', '.join(changed)}: numbers may differ a little."
            )


class _Places(TrainerCallback):
    """Tells the trainer where its training loop is."""

    def __init__(self, trainer: FaultTolerantTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainer._evaluation_due, self.trainer._micro_step = False, -1
        self.trainer._restore_log_state()

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.trainer._between_epochs = False

    def on_epoch_end(self, args, state, control, **kwargs):
        self.trainer._between_epochs = True

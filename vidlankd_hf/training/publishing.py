"""The Trainer's part that ends a run: the finished model is written whole, described by its card, and pushed."""

from pathlib import Path

from huggingface_hub import CommitInfo
from transformers.utils import logging

from ..hub.push import PushError, make_repository, push
from ..reliability import run_dir
from ..reliability.checkpointing import move_into
from ..reliability.fault_tolerant_trainer import FaultTolerantTrainer
from ..reliability.ranks import raise_if_any_rank_failed

logger = logging.get_logger(__name__)


class PublishingTrainer(FaultTolerantTrainer):
    """Base of [`PretrainingTrainer`] and of the trainer that fine-tunes."""

    hub_model_id: str | None = None
    push_error: str | None = None

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Writes the finished model with tokenizer and card; with `push_to_hub` the run's own folder is pushed."""
        if _internal_call:
            super().save_model(output_dir, _internal_call=True)
            return
        folder = Path(output_dir or self.args.output_dir)
        self._save_finished(folder)
        if self.args.push_to_hub and folder == Path(self.args.output_dir):
            self._push("Model save")

    def _save_finished(self, folder: Path) -> None:
        self.raise_if_non_finite(weights=True)
        part, error = folder / ".model.part", None
        super().save_model(str(part), _internal_call=True)
        if self.args.should_save:
            try:
                self.write_card(part)
            except Exception as caught:
                error = caught
        raise_if_any_rank_failed(f"{folder} has no new model", error)
        if self.args.should_save:
            move_into(part, folder)
        raise_if_any_rank_failed(f"{folder} has no new model")

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Model and tokenizer; no pickled arguments (`run.json` holds the settings)."""
        if self.args.should_save:
            output_dir = output_dir or self.args.output_dir
            self.accelerator.unwrap_model(self.model).save_pretrained(output_dir, state_dict=state_dict)
            if self.processing_class is not None:
                self.processing_class.save_pretrained(output_dir)

    def write_card(self, folder: Path) -> None:
        """Writes `README.md` into a finished model's folder: nothing, unless overridden."""

    def create_model_card(self, *args, **kwargs) -> None:
        """Writes our card anew, from the run as it is now, whatever the stock Trainer's would say."""
        if self.is_world_process_zero():
            self.write_card(Path(self.args.output_dir))

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        name = self.args.hub_model_id or Path(self.args.output_dir).resolve().name
        private = self.args.hub_private_repo if private is None else private
        self.hub_model_id = make_repository(self.args, name, token or self.args.hub_token, private)

    def push_to_hub(
        self,
        commit_message: str = "End of training",
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
    ) -> CommitInfo | None:
        """Saves the finished model to `args.output_dir` and pushes it; all processes call it.

        A push that fails ends nothing: it says which command pushes the folder, which `push_error` holds then.

        Returns:
            The commit, on the first process; `None` on the others and where it failed.
        """
        self._save_finished(Path(self.args.output_dir))
        return self._push(commit_message, token, revision, private)

    def _push(self, commit_message: str, token=None, revision=None, private=None) -> CommitInfo | None:
        args, self.push_error = self.args, None
        if not self.is_world_process_zero():
            return None
        self._watchdog.stop()  # an upload takes what it takes
        self.callback_handler.on_push_begin(args, self.state, self.control)
        try:
            commit = push(
                args.output_dir,
                self.hub_model_id or args.hub_model_id or Path(args.output_dir).resolve().name,
                commit_message,
                token or args.hub_token,
                args.hub_private_repo if private is None else private,
                revision or args.hub_revision,
            )
        except PushError as error:
            self.push_error = str(error)
            logger.error(self.push_error)
            return None
        run_dir.log_on_main(args, f"Pushed to {commit.repo_url}")
        return commit

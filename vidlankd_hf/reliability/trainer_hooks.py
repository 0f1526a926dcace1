"""The private parts of `transformers.Trainer` that this package depends on, all in one table.

`tests/reliability/test_trainer_hooks.py` compares the table with the code and with the installed transformers: a new
use must be added here, and a release that changes one fails the test. Use public methods and callbacks where possible.
"""

from typing import NamedTuple


class Hook(NamedTuple):
    """A private name of `transformers.Trainer`.

    Args:
        use: "overridden", "called" or "attribute".
        parameters: Names of the method's parameters; `None` for an attribute.
        reason: Why no public method or callback does the job.
    """

    use: str
    parameters: tuple[str, ...] | None
    reason: str


TRAINER_HOOKS = {
    "_maybe_log_save_evaluate": Hook(
        "overridden",
        ("tr_loss", "grad_norm", "model", "trial", "epoch", "ignore_keys_for_eval", "start_time", "learning_rate"),
        "preemption stops after the log, evaluation and save of a step, and `on_step_end` comes before them; also the "
        "only place that is given the gradient norm",
    ),
    "_save_checkpoint": Hook("overridden", ("model", "trial"), "checkpoints are complete or absent"),
    "_get_output_dir": Hook("overridden", ("trial",), "the stock `_save_checkpoint` writes to a hidden folder"),
    "_save": Hook(
        "overridden", ("output_dir", "state_dict"), "no pickled arguments; a student is saved as a plain model"
    ),
    "_get_train_sampler": Hook("overridden", ("train_dataset",), "the order depends only on (seed, epoch)"),
    "_prepare_inputs": Hook("called", ("inputs",), "the evaluation loop moves batches as training does"),
    "_tr_loss": Hook(
        "attribute", None, "the sum of losses since the last log is saved with a checkpoint and restored"
    ),
    "_globalstep_last_logged": Hook("attribute", None, "the step of the last log is saved and restored"),
}

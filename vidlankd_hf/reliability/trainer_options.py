"""Which options of `transformers.TrainingArguments` and `Trainer` work here, and which are refused.

Every option either works or is refused at construction. An option that a newer transformers adds is in no table and is
refused until it is listed here.
"""

from dataclasses import MISSING, fields
from enum import Enum
from typing import Any, NamedTuple

from transformers import TrainingArguments


class Refused(NamedTuple):
    """An option with one allowed value: that value, and what to do instead of giving another one."""

    only: Any
    remedy: str


WORKS = set(
    """
    output_dir per_device_train_batch_size num_train_epochs max_steps gradient_accumulation_steps seed data_seed
    full_determinism
    learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps optim optim_args optim_target_modules weight_decay
    adam_beta1 adam_beta2 adam_epsilon max_grad_norm neftune_noise_alpha
    bf16 fp16 tf32 gradient_checkpointing gradient_checkpointing_kwargs activation_checkpointing
    activation_checkpointing_kwargs torch_compile torch_compile_backend torch_compile_mode torch_empty_cache_steps
    use_cpu accelerator_config deepspeed
    logging_strategy logging_steps logging_first_step log_on_each_node log_level log_level_replica disable_tqdm
    report_to run_name project trackio_space_id trackio_bucket_id trackio_static_space_id skip_memory_metrics
    include_num_input_tokens_seen
    eval_strategy eval_steps eval_delay eval_on_start per_device_eval_batch_size eval_accumulation_steps
    save_strategy save_steps save_on_each_node save_total_limit load_best_model_at_end metric_for_best_model
    greater_is_better restore_callback_states_from_checkpoint
    push_to_hub hub_token hub_private_repo hub_model_id hub_revision
    dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor
    dataloader_multiprocessing_context
    ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout
    """.split()
)

HARMLESS = {
    "do_train": "the scripts always train, so it has no effect; leave it out",
    "do_eval": "the scripts always evaluate at the end; transformers itself sets it together with eval_strategy",
    "logging_nan_inf_filter": "a run stops at a loss that is not finite with it too; it only waits for the device",
    "local_rank": "an old launcher passes it; the real rank comes from the environment",
}

_NO_PREDICTIONS = "it belongs to compute_metrics, which is not supported; leave it out"
_FSDP = "launch with `accelerate launch --config_file accelerate_configs/fsdp2.yaml` to shard with FSDP"
REFUSED = {
    "average_tokens_across_devices": Refused(True, "means are always exact over all processes; leave it out"),
    "label_smoothing_factor": Refused(0.0, "the losses do not smooth labels; leave it out, or use your own objective"),
    "bf16_full_eval": Refused(False, "give --bf16 true: evaluation then uses bfloat16 autocast too"),
    "fp16_full_eval": Refused(False, "give --fp16 true: evaluation then uses float16 autocast too"),
    "use_liger_kernel": Refused(False, "there are no Liger kernels for BERT-like models; try --torch_compile true"),
    "liger_kernel_config": Refused(None, "there are no Liger kernels for BERT-like models; try --torch_compile true"),
    "use_cache": Refused(False, "an encoder has no key-value cache; leave it out"),
    "auto_find_batch_size": Refused(
        False,
        "it would change the number of samples in a step; the out-of-memory error says which "
        "--per_device_train_batch_size and --gradient_accumulation_steps keep it",
    ),
    "debug": Refused("", "a run already stops at a loss, gradient or weight that is not finite, and names the step"),
    "prediction_loss_only": Refused(False, _NO_PREDICTIONS),
    "eval_do_concat_batches": Refused(True, _NO_PREDICTIONS),
    "eval_use_gather_object": Refused(False, _NO_PREDICTIONS),
    "include_for_metrics": Refused([], _NO_PREDICTIONS),
    "batch_eval_metrics": Refused(False, _NO_PREDICTIONS),
    "save_only_model": Refused(False, "such a checkpoint could not be resumed; call trainer.save_model() instead"),
    "enable_jit_checkpoint": Refused(False, "SIGTERM, SIGUSR1 and Ctrl-C already save a checkpoint; leave it out"),
    "hub_strategy": Refused(
        "end",
        "--push_to_hub pushes the finished model, and a checkpoint is not one (a student's holds heads and optimizer "
        "states). To keep a checkpoint on the Hub: hf upload REPO OUTPUT_DIR/checkpoint-N checkpoint-N",
    ),
    "hub_always_push": Refused(False, "the finished model is pushed once; leave it out"),
    "ignore_data_skip": Refused(False, "a resumed run continues with the next batch anyway; leave it out"),
    "parallelism_config": Refused(None, "the models train with data parallelism, ZeRO or FSDP; leave it out"),
    "dataloader_drop_last": Refused(False, "steps are always full, and evaluation needs every sample; leave it out"),
    "dataloader_in_order": Refused(True, "batches in another order would make a run impossible to repeat or resume"),
    "remove_unused_columns": Refused(False, "the collators read columns that the model does not; leave it out"),
    "label_names": Refused(None, "the collator makes the labels; leave it out"),
    "train_sampling_strategy": Refused(
        "random", "each epoch has a random order, set by --seed; fine-tuning already batches texts of similar length"
    ),
    "length_column_name": Refused("length", "lengths are measured, not read from a column; leave it out"),
    "fsdp": Refused(None, _FSDP),
    "fsdp_config": Refused(None, _FSDP),
    "do_predict": Refused(False, "the scripts do not predict; call FinetuningTrainer.predict(dataset)"),
    "resume_from_checkpoint": Refused(
        None,
        "the scripts resume by themselves from the newest complete checkpoint in --output_dir; in Python call "
        "trainer.train(resume_from_checkpoint=...)",
    ),
}

# Optimizers that change the weights during the backward pass, before the gradients are checked and clipped, or that
# need another mode for evaluation.
REFUSED_OPTIMIZERS = ("lomo", "adalomo", "schedule_free_", "_layerwise")

TRAINER_WORKS = set(
    """
    model args data_collator train_dataset eval_dataset processing_class callbacks optimizers optimizer_cls_and_kwargs
    """.split()
)
TRAINER_REFUSED = {
    "model_init": "give the model itself; to search hyper-parameters, build a new trainer for each trial",
    "compute_loss_func": "give your loss as an objective: DistillationConfig(objectives={'mine': MyLoss()})",
    "compute_metrics": "evaluation keeps no predictions. Override the trainer's `collect` and `collected_metrics`, "
    "or compute the metric from FinetuningTrainer.predict(dataset)",
    "preprocess_logits_for_metrics": "evaluation keeps no predictions. Override the trainer's `collect`",
}


def check_training_arguments(args: TrainingArguments, refused: dict[str, Refused]) -> None:
    """Refuses options that would have no effect, or a wrong effect.

    Args:
        args: The arguments as given, before `TrainingArguments.__post_init__`.
        refused: Options that have only one possible value.

    Raises:
        ValueError: Names the option, its value, the value that is allowed and what to do instead.
    """
    for field in fields(TrainingArguments):
        value = getattr(args, field.name)
        if field.name in refused:
            only, remedy = refused[field.name]
            if value != only and (value or only):
                raise ValueError(f"{field.name} is {_plain(value)!r}, but only {only!r} is possible: {remedy}")
        elif field.name not in WORKS and field.name not in HARMLESS:
            if value == (field.default if field.default_factory is MISSING else field.default_factory()):
                continue
            raise ValueError(
                f"{field.name} is {_plain(value)!r}, but this version of vidlankd_hf does not know this option of a "
                "newer transformers: leave it out, or install a newer vidlankd_hf"
            )
    optimizer = str(_plain(args.optim))
    if any(name in optimizer for name in REFUSED_OPTIMIZERS):
        raise ValueError(
            f"optim is {optimizer!r}, but optimizers that update the weights during the backward pass (lomo, adalomo, "
            "*_layerwise) or have a mode for evaluation (schedule_free_*) are not supported: choose another, such as "
            "adamw_torch_fused"
        )


def check_accelerator_config(config: Any) -> None:
    """Refuses settings of accelerate that would change which samples a batch holds.

    Raises:
        ValueError: Names the setting and what to do instead.
    """
    for name, only in (("split_batches", False), ("dispatch_batches", None), ("even_batches", True)):
        value = getattr(config, name)
        if value != only and (value or only):
            raise ValueError(
                f"accelerator_config has {name} {value!r}, but only {only!r} is possible: each process reads its own "
                "batches, of --per_device_train_batch_size samples"
            )
    steps = (config.gradient_accumulation_kwargs or {}).get("num_steps", 1)
    if steps != 1:
        raise ValueError(
            f"accelerator_config has num_steps {steps} in gradient_accumulation_kwargs: give "
            f"--gradient_accumulation_steps {steps} instead"
        )


def check_trainer_arguments(given: dict[str, Any], arguments: type[TrainingArguments]) -> None:
    """Refuses arguments of a trainer that would have no effect.

    Args:
        given: Keyword arguments of the constructor.
        arguments: The class that `args` must be of.

    Raises:
        ValueError: Names the argument and what to do instead.
    """
    for name, remedy in TRAINER_REFUSED.items():
        if given.get(name) is not None:
            raise ValueError(f"{name} is not supported: {remedy}")
    args = given.get("args")
    if not isinstance(args, arguments):
        raise ValueError(
            f"args is a {type(args).__name__}, but this trainer needs a {arguments.__name__}, which has the same "
            f"fields: write {arguments.__name__}(output_dir=..., learning_rate=...) instead"
        )


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value

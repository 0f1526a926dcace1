"""Compares settings, data, tokenizer and teacher of a resumed run with the original ones; names each difference."""

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.utils import cached_file

from ..data.fingerprint import stable_hash
from ..utils.addresses import is_address, public_address, without_secrets
from ..utils.io import sha256_of

# Settings that may change when a run is resumed: they do not affect training results. All others must stay the same.
FREE_SETTINGS = frozenset(
    """
    output_dir allow_changed resume_from_checkpoint restore_callback_states_from_checkpoint preempt_exit_code
    hang_timeout do_train do_eval do_predict local_rank ddp_timeout ddp_backend log_level log_level_replica
    log_on_each_node logging_strategy logging_steps logging_first_step logging_dir logging_nan_inf_filter disable_tqdm
    report_to run_name project trackio_space_id trackio_bucket_id trackio_static_space_id skip_memory_metrics debug
    include_num_input_tokens_seen eval_strategy eval_steps eval_delay eval_on_start per_device_eval_batch_size
    eval_accumulation_steps save_strategy save_steps save_total_limit save_on_each_node save_only_model
    dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor
    dataloader_multiprocessing_context dataloader_in_order push_to_hub hub_token hub_private_repo hub_model_id
    hub_revision hub_strategy hub_always_push torch_empty_cache_steps cache_dir num_proc processes
    """.split()
)
# Another number of processes divides the same sequences of a step differently.
OF_PROCESSES = ("per_device_train_batch_size", "gradient_accumulation_steps")
# A checkpoint holds the optimizer, so a change of these would have no effect.
IN_OPTIMIZER = ("optim", "optim_args", "optim_target_modules")
# Token ids are left out as well: the Trainer copies them from the tokenizer, which is compared separately.
FREE_IN_CONFIG = frozenset("transformers_version dtype torch_dtype architectures auto_map use_cache".split())
FINGERPRINTS, WEIGHTS = "fingerprints", "weights"  # settings for which None means unknown


def affects_results(name: str) -> bool:
    """Whether a setting can change what the model learns, or which weights the run ends with."""
    return name not in FREE_SETTINGS


def settings_of_run(args: TrainingArguments, own: dict[str, Any]) -> dict[str, Any]:
    """All settings as JSON values, without credentials.

    Args:
        args: Training arguments of the run.
        own: Settings of the script besides `args`.
    """
    sequences = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    derived = {"sequences_per_step": sequences, "processes": args.world_size}
    return _without_secrets(json.loads(json.dumps({**args.to_dict(), **own, **derived}, default=_stable)))


def changed_settings(was: dict[str, Any], now: dict[str, Any], allowed: Collection[str] = ()) -> dict[str, str]:
    """Describes each setting that differs, except those that a run may change and those in `allowed`.

    Args:
        was: [`settings_of_run`] that a folder or checkpoint holds.
        now: Those of the run that starts.
        allowed: Names of settings that may differ.
    """
    found = {}
    other_processes = was.get("processes", now["processes"]) != now["processes"]
    for name in dict.fromkeys([*now, *was]):
        if not affects_results(name) or name in allowed or (other_processes and name in OF_PROCESSES):
            continue
        if name not in was or name not in now:
            if name in TrainingArguments.__dataclass_fields__:  # another version of transformers
                continue
        old, new = was.get(name), now.get(name)
        if name == FINGERPRINTS:
            found |= changed_parts(old or {}, new or {}, allowed)
        elif name == WEIGHTS:
            found |= changed_parts({name: old}, {name: new}, allowed)
        elif old != new:
            found[name] = f"{name} was {old!r} and is now {new!r}"
    return found


def changed_parts(was: dict[str, Any], now: dict[str, Any], allowed: Collection[str] = ()) -> dict[str, str]:
    """Describes each fingerprint that differs, except those in `allowed`; `None` is unknown, so it never differs."""
    return {
        name: f"{name} was {str(was[name])[:12]} and is now {str(new)[:12]}"
        for name, new in now.items()
        if name not in allowed and None not in (was.get(name), new) and was[name] != new
    }


def changed_records(was: dict[str, Any], now: dict[str, Any], allowed: Collection[str]) -> dict[str, str]:
    """Describes what differs between the records of two starts of a run; see [`run_dir.record`].

    Args:
        was: The record in a checkpoint.
        now: The record of this start.
        allowed: Names of settings and parts that may differ.
    """
    was = {**was, "processes": was.get("processes", now["processes"])}
    held, given = ({**record.get("settings", {}), "processes": record["processes"]} for record in (was, now))
    found = changed_settings(held, given, allowed) if "settings" in was else {}
    before, after = (
        {f"{name}_data": value for name, value in record["data"].items()} | record.get("parts", {})
        for record in (was, now)
    )
    for name, config in now.get("configs", {}).items():
        if name not in allowed:
            found |= _changed_config(name, was.get("configs", {}).get(name, {}), config)
    return found | changed_parts(before, after, allowed)


def config_values(config: dict[str, Any]) -> dict[str, Any]:
    """The values of a model's configuration that affect results, as JSON values; nested ones as `text_config.*`."""
    values = {}
    for name, value in config.items():
        if name in FREE_IN_CONFIG or name.startswith("_") or name.endswith("_token_id"):
            continue
        if name.endswith("_config") and isinstance(value, dict):
            values |= {f"{name}.{inner}": held for inner, held in config_values(value).items()}
        else:
            values[name] = value
    return json.loads(json.dumps(values, default=_stable))


def _changed_config(name: str, was: dict[str, Any], now: dict[str, Any]) -> dict[str, str]:
    changed = [key for key in was if key in now and was[key] != now[key]]  # other versions have other keys
    said = ", ".join(f"{key} of {name} was {was[key]!r} and is now {now[key]!r}" for key in changed)
    return {name: said} if changed else {}


def check_allowed(names: Collection[str]) -> None:
    """Raises a `ValueError` for the name of a setting whose change would have no effect."""
    for name in set(names) & {*IN_OPTIMIZER}:
        raise ValueError(
            f"--allow_changed {name}: a checkpoint holds the optimizer, so a new value would have no effect. Start a "
            "new run from the weights instead"
        )


def apply_to_optimizer(args: TrainingArguments, optimizer: Any, scheduler: Any) -> None:
    """Sets allowed changes of settings in a restored optimizer, which otherwise keeps those of the checkpoint."""
    allowed = set(args.allow_changed or ())
    if not allowed:
        return
    for group in optimizer.param_groups:
        if "learning_rate" in allowed and group.get("initial_lr"):
            ratio = args.learning_rate / group["initial_lr"]
            group["lr"], group["initial_lr"] = group["lr"] * ratio, args.learning_rate
        if "weight_decay" in allowed and group.get("weight_decay"):
            group["weight_decay"] = args.weight_decay
        if "betas" in group:
            betas = zip(("adam_beta1", "adam_beta2"), group["betas"])
            group["betas"] = tuple(getattr(args, name) if name in allowed else beta for name, beta in betas)
        if "adam_epsilon" in allowed and "eps" in group:
            group["eps"] = args.adam_epsilon
    if "learning_rate" in allowed and "base_lrs" in (state := scheduler.state_dict()):
        rates = [group["lr"] for group in optimizer.param_groups]
        scheduler.load_state_dict({**state, "base_lrs": [args.learning_rate] * len(rates), "_last_lr": rates})


def weights_fingerprint(model: str | Path) -> str | None:
    """Identity of a model's weights: the sha256 of the weights in a folder, or the commit of a Hub id.

    Args:
        model: Folder or Hub id.

    Returns:
        Hexadecimal; None if the weights are not known, for example without a network.
    """
    if Path(model).is_dir():
        files = sorted(Path(model).glob("*.safetensors")) or sorted(Path(model).glob("pytorch_model*.bin"))
        hashes = [sha256_of(file) for file in files]
        return None if not files else hashes[0] if len(files) == 1 else stable_hash(hashes)
    try:
        file = cached_file(str(model), "config.json")
    except (OSError, ValueError):
        return None
    commit = re.search(r"/snapshots/([0-9a-f]{40})/", Path(file).as_posix()) if file else None
    return commit and commit[1]


def model_fingerprint(model: torch.nn.Module) -> str:
    """Hexadecimal sha256 of all weights of a model in memory."""
    return stable_hash(dict(model.state_dict()))


def _stable(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    text = str(value)
    if " at 0x" in text:
        return f"{type(value).__module__}.{type(value).__qualname__} {stable_hash(value)[:16]}"
    return text


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_secrets(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    if not isinstance(value, str):
        return value
    return public_address(value) if is_address(value) else without_secrets(value)

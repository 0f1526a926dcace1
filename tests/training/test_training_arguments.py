"""Every option of `transformers.TrainingArguments` and `Trainer` works or is refused at construction."""

import inspect
from dataclasses import fields, replace

import pytest
import torch
from helpers import logged, make_student, make_texts, make_tokenizer, train
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments

from vidlankd_hf import DistillationConfig, DistillationTrainer, TeacherConfig
from vidlankd_hf.evaluation.arguments import FinetuningArguments
from vidlankd_hf.reliability import trainer_options
from vidlankd_hf.reliability.out_of_memory import advice
from vidlankd_hf.reliability.run_dir import is_finished
from vidlankd_hf.reliability.trainer_options import (
    HARMLESS,
    REFUSED,
    REFUSED_OPTIMIZERS,
    TRAINER_REFUSED,
    TRAINER_WORKS,
    WORKS,
)
from vidlankd_hf.training.arguments import PretrainingArguments
from vidlankd_hf.training.build import evaluate_and_save, split_blocks

CLASSES = (TeacherConfig, DistillationConfig, FinetuningArguments)
FIELDS = {field.name for field in fields(TrainingArguments)}
REFUSED_HERE = sorted({*REFUSED, *PretrainingArguments.refused} & FIELDS)


def arguments(kind=DistillationConfig, **given):
    return kind(**{"output_dir": "never-written", "use_cpu": True, "report_to": "none", **given})


def other_than(only):
    """A value that an option of which only one value is possible must refuse."""
    if isinstance(only, bool):
        return not only
    return {float: 0.1, list: ["loss"], str: "sequential"}.get(type(only), "given")


def test_every_option_of_the_installed_transformers_is_decided_once():
    tables = [WORKS, set(HARMLESS), set(REFUSED)]
    decided = set().union(*tables)
    assert not FIELDS - decided, "new options: try them, and list them in vidlankd_hf/reliability/trainer_options.py"
    assert sum(map(len, tables)) == len(decided)
    newer = {"activation_checkpointing", "activation_checkpointing_kwargs"}  # 5.22 and later
    assert decided - newer <= FIELDS


def test_every_argument_of_the_stock_trainer_is_decided_once():
    parameters = set(inspect.signature(Trainer.__init__).parameters) - {"self"}
    assert parameters == TRAINER_WORKS | set(TRAINER_REFUSED) and not TRAINER_WORKS & set(TRAINER_REFUSED)


@pytest.mark.parametrize("name", REFUSED_HERE)
def test_refused_option_raises_with_value_allowed_value_and_remedy(name):
    for kind in CLASSES:
        if name not in kind.refused:
            continue
        only, remedy = kind.refused[name]
        value = other_than(only)
        with pytest.raises(ValueError) as error:
            arguments(kind, **{name: value})
        assert str(error.value) == f"{name} is {value!r}, but only {only!r} is possible: {remedy}"
        arguments(kind, **{name: only})


@pytest.mark.parametrize("kind", CLASSES)
def test_default_arguments_are_accepted_and_can_be_copied(kind):
    args = arguments(kind, eval_strategy="steps", eval_steps=1, do_train=True)
    assert replace(args, seed=7, output_dir="elsewhere").seed == 7


def test_option_of_a_newer_transformers_is_refused_until_it_is_decided(monkeypatch):
    monkeypatch.setattr(trainer_options, "WORKS", WORKS - {"optim_args"})
    arguments()
    with pytest.raises(ValueError, match="optim_args is 'a=1', but this version of vidlankd_hf does not know"):
        arguments(optim_args="a=1")


@pytest.mark.parametrize("part", REFUSED_OPTIMIZERS)
def test_optimizer_that_bypasses_the_checks_of_a_step_is_refused(part):
    name = {"schedule_free_": "schedule_free_adamw", "_layerwise": "galore_adamw_layerwise"}.get(part, part)
    with pytest.raises(ValueError, match=f"optim is '{name}'.*adamw_torch_fused"):
        arguments(optim=name)


@pytest.mark.parametrize(
    "config, message",
    [
        ({"split_batches": True}, "split_batches True, but only False"),
        ({"dispatch_batches": True}, "dispatch_batches True, but only None"),
        ({"even_batches": False}, "even_batches False, but only True"),
        ({"gradient_accumulation_kwargs": {"num_steps": 4}}, "give --gradient_accumulation_steps 4 instead"),
    ],
)
def test_accelerator_settings_that_change_batches_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        arguments(accelerator_config=config)


def test_out_of_memory_advice_names_options_of_every_supported_transformers():
    args = arguments(per_device_train_batch_size=1)
    assert "--gradient_checkpointing true" in advice(args, evaluating=False)
    assert "gradient_checkpointing" in FIELDS


# ---- options that work: each has a visible effect ----


def test_data_seed_sets_the_order_alone(tmp_path):
    def trained(name, **seeds):
        return train("student", tmp_path / name, max_steps=2, **seeds)

    both, order, plain = trained("both", seed=9, data_seed=5), trained("order", seed=5), trained("plain", seed=9)
    orders = [list(trainer._get_train_sampler()) for trainer in (both, order, plain)]
    assert orders[0] == orders[1] != orders[2]
    assert both.data_collator.seed == plain.data_collator.seed == 9
    assert logged(both, "loss") != logged(order, "loss")


def test_neftune_noise_changes_the_losses_and_is_drawn_again_on_resume(tmp_path):
    options = {"max_steps": 4, "neftune_noise_alpha": 5.0, "save_strategy": "steps", "save_steps": 2}
    noisy = train("student", tmp_path / "noisy", **options)
    assert logged(noisy, "loss") != logged(train("student", tmp_path / "plain", max_steps=4), "loss")
    resumed = train("student", tmp_path / "noisy", **options, resume=str(tmp_path / "noisy" / "checkpoint-2"))
    assert logged(resumed, "loss") == logged(noisy, "loss")


def test_input_tokens_are_counted(tmp_path):
    lengths = {"all": 0, "non_padding": 0}
    for kind in lengths:
        trainer = train("student", tmp_path / kind, max_steps=2, include_num_input_tokens_seen=kind)
        lengths[kind] = trainer.state.num_input_tokens_seen
    keys = list(trainer._get_train_sampler())[:8]
    assert lengths["non_padding"] == sum(len(make_texts(50)[key]["input_ids"]) + 2 for key in keys) < lengths["all"]


def test_memory_metrics_are_reported(tmp_path):
    trainer = train("student", tmp_path, max_steps=1, skip_memory_metrics=False)
    assert "train_mem_cpu_alloc_delta" in trainer.state.log_history[-1]


def test_deterministic_algorithms_and_an_emptied_cache_change_no_loss(tmp_path):
    plain = train("student", tmp_path / "plain", {"nst": 10.0, "crd": 1.0}, max_steps=2)
    try:
        strict = train("student", tmp_path / "strict", {"nst": 10.0, "crd": 1.0}, max_steps=2, full_determinism=True,
                       torch_empty_cache_steps=1)  # fmt: skip
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert logged(strict, "loss") == logged(plain, "loss")


@pytest.mark.parametrize("optim", ["SGD", "Adafactor", "Adagrad"])
def test_other_optimizers_train_and_resume_exactly(tmp_path, optim):
    options = {"optim": optim.lower(), "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    trainer = train("student", tmp_path, **options)
    assert type(trainer.optimizer.optimizer).__name__ == optim
    resumed = train("student", tmp_path, **options, resume=str(tmp_path / "checkpoint-2"))
    assert logged(resumed, "loss", "grad_norm") == logged(trainer, "loss", "grad_norm")


def test_learning_rate_falls_where_evaluation_does_not_improve(tmp_path):
    trainer = train("student", tmp_path, max_steps=3, lr_scheduler_type="reduce_lr_on_plateau", eval_strategy="steps",
                    eval_steps=1, lr_scheduler_kwargs={"patience": 0, "threshold": 1e9, "threshold_mode": "abs",
                                                      "factor": 0.5})  # fmt: skip
    rates = [entry["learning_rate"] for entry in logged(trainer, "learning_rate")]
    assert rates[-1] < rates[0]


def test_patience_of_early_stopping_is_restored(tmp_path):
    def stopped(resume=None):
        callback = EarlyStoppingCallback(early_stopping_patience=3, early_stopping_threshold=1e9)
        return train("student", tmp_path, max_steps=8, eval_strategy="steps", eval_steps=1, save_strategy="steps",
                     save_steps=1, load_best_model_at_end=True, metric_for_best_model="loss", callbacks=[callback],
                     restore_callback_states_from_checkpoint=True, resume=resume)  # fmt: skip

    whole = stopped().state.global_step
    assert whole < 8 and stopped(str(tmp_path / "checkpoint-2")).state.global_step == whole


# ---- arguments of the trainers ----


@pytest.mark.parametrize("name", TRAINER_REFUSED)
def test_refused_trainer_argument_raises_with_the_remedy(name, tmp_path):
    tokenizer = make_tokenizer()
    with pytest.raises(ValueError) as error:
        DistillationTrainer(
            model=make_student(tokenizer),
            args=arguments(output_dir=str(tmp_path), objectives={}),
            train_dataset=make_texts(20),
            processing_class=tokenizer,
            **{name: lambda *_: {}},
        )
    assert str(error.value) == f"{name} is not supported: {TRAINER_REFUSED[name]}"


def test_hyperparameter_search_is_refused(tmp_path):
    with pytest.raises(ValueError, match="hyperparameter_search is not supported: .*a new trainer for each trial"):
        train("student", tmp_path, max_steps=1).hyperparameter_search(n_trials=2)


def test_text_of_one_block_cannot_be_split_and_the_message_names_the_option():
    blocks = [{"input_ids": [5]}]
    assert split_blocks(blocks, 0, 8) == (blocks, None)
    with pytest.raises(ValueError, match="fills only one block, .* --held_out_text 0"):
        split_blocks(blocks, 0.02, 8)


def test_number_of_blocks_is_held_out_or_by_default_a_share_of_limited_size(monkeypatch):
    class Blocks(list):
        def split(self, count):
            return self[:-count], self[-count:]

    blocks = Blocks(range(2000))
    sizes = {held_out: len(split_blocks(blocks, held_out, 8)[1]) for held_out in (None, 0.02, 0.1, 13)}
    assert sizes == {None: 40, 0.02: 40, 0.1: 200, 13: 13}
    monkeypatch.setattr("vidlankd_hf.training.build.MOST_HELD_OUT", 16)
    assert len(split_blocks(blocks, None, 8)[1]) == 16 and len(split_blocks(blocks, 0.02, 8)[1]) == 40
    for wrong in (-1, 2.5):
        with pytest.raises(ValueError, match="--held_out_text is .*share below 1, a whole number"):
            split_blocks(blocks, wrong, 8)


def test_model_is_saved_before_its_final_evaluation_and_its_card_has_the_scores(tmp_path, monkeypatch):
    trainer = train("teacher", tmp_path, max_steps=1)
    with monkeypatch.context() as patch:
        patch.setattr(type(trainer), "evaluate", lambda self: (_ for _ in ()).throw(MemoryError("no memory")))
        with pytest.raises(MemoryError):
            evaluate_and_save(trainer)
    assert (tmp_path / "model.safetensors").exists() and not is_finished(tmp_path)
    evaluate_and_save(trainer)
    assert "held out" in (tmp_path / "README.md").read_text() and is_finished(tmp_path)

"""Small models, data and training runs for tests."""

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AlignConfig,
    AlignModel,
    FlavaConfig,
    FlavaForPreTraining,
    FlavaModel,
    PreTrainedTokenizerFast,
)

from vidlankd_hf import VidLanKDTeacher, VidLanKDTeacherConfig, bert_config, student_class, student_config
from vidlankd_hf.models.configuration import video_config_like

FEATURE_SIZE = 6
WORDS = [f"word{i}" for i in range(60)]
MINI = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}


def make_tokenizer(words=WORDS) -> PreTrainedTokenizerFast:
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def make_config(tokenizer, dropout: float = 0.1, **shape):
    return bert_config(
        "tiny", tokenizer, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, **{**MINI, **shape}
    )


def make_teacher(tokenizer, seed: int = 0, dropout: float = 0.1, shape=MINI, **config) -> VidLanKDTeacher:
    torch.manual_seed(seed)
    text = make_config(tokenizer, dropout, **shape)
    video = video_config_like(text, FEATURE_SIZE)
    video.hidden_dropout_prob = video.attention_probs_dropout_prob = dropout
    return VidLanKDTeacher(VidLanKDTeacherConfig(text_config=text, video_config=video, **config))


def make_student(tokenizer, seed: int = 1, dropout: float = 0.1, shape=MINI, model_type: str = "bert"):
    """Creates a student. ModernBERT has three layers, two of which attend to four tokens on each side."""
    torch.manual_seed(seed)
    if model_type == "modernbert":
        dropouts = dict.fromkeys(("embedding_dropout", "attention_dropout", "mlp_dropout"), dropout)
        shape = {**shape, "num_hidden_layers": 3, "local_attention": 8}
    else:
        dropouts = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), dropout)
    return student_class(model_type)(student_config("tiny", tokenizer, model_type, **dropouts, **shape))


def make_vision_language_model(name, tokenizer, seed: int = 0):
    """Creates a FLAVA or ALIGN with random weights, whose text states are wider than the students'."""
    torch.manual_seed(seed)
    text = {**MINI, "hidden_size": 48, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    if name == "align":
        vision = {"image_size": 32, "width_coefficient": 0.1, "depth_coefficient": 0.1, "hidden_dim": 32}
        return AlignModel(AlignConfig(text_config=text, vision_config=vision, projection_dim=32))
    config = FlavaConfig(
        text_config=text,
        image_config={**MINI, "image_size": 32, "patch_size": 16},
        multimodal_config=MINI,
        image_codebook_config={"hidden_size": 8, "num_groups": 1, "vocab_size": 16},
        projection_dim=16,
    )
    return FlavaModel(config) if name == "flava" else FlavaForPreTraining(config)


def make_texts(count: int, seed: int = 0, lengths=(1, 20)) -> list[dict]:
    """Creates texts of different lengths, as token ids without special tokens."""
    rng = np.random.default_rng(seed)
    return [{"input_ids": rng.integers(5, 5 + len(WORDS), rng.integers(*lengths))} for _ in range(count)]


def make_video_text(count: int, seed: int = 0, candidates: bool = False):
    """Creates a `datasets.Dataset` of captioned clips, two of each video, on request with the other clip's text."""
    from datasets import Dataset

    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        text = " ".join(WORDS[j] for j in rng.integers(0, len(WORDS), rng.integers(2, 12)))
        features = rng.normal(size=(rng.integers(1, 5), FEATURE_SIZE)).astype(np.float32)
        rows.append({"id": f"v{i}", "video": f"v{i // 2}", "text": text, "video_features": features})
    if candidates:
        for i, row in enumerate(rows):  # the first video has none, as a video of a single window
            row["candidates"] = [rows[i ^ 1]["text"]] if 1 < i < count - 1 else []
    return Dataset.from_list(rows)


def train(kind: str, output_dir, objectives=None, resume=None, dropout: float = 0.0, stop_after=None, callbacks=(),
          teacher_dtype=torch.float32, shape=MINI, student_model_type="bert", teacher=None, design=None, texts=None,
          aligned=False, **arguments):  # fmt: skip
    """Trains a small teacher, or a small student with a new or the given teacher, and returns the trainer.

    With `aligned`, the teacher has another tokenizer than the student.
    """
    from transformers import TrainerCallback

    from vidlankd_hf import DistillationConfig, DistillationTrainer, TeacherConfig, TeacherTrainer

    class StopAfter(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = control.should_training_stop or state.global_step == stop_after
            return control

    tokenizer = make_tokenizer()
    arguments = {
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "max_steps": 3,
        "logging_steps": 1,
        "save_strategy": "no",
        "seed": 5,
        "learning_rate": 1e-3,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "output_dir": str(output_dir),
        **arguments,
    }
    if kind == "teacher":
        args, candidates = TeacherConfig(**arguments), (design or {}).get("contrast") == "mil_nce"
        trainer = TeacherTrainer(
            model=make_teacher(tokenizer, dropout=dropout, shape=shape, **design or {}),
            args=args,
            train_dataset=make_video_text(48, candidates=candidates),
            eval_dataset=make_video_text(13, seed=1, candidates=candidates),
            processing_class=tokenizer,
        )
    else:
        args, teacher_tokenizer, make = DistillationConfig(**arguments, objectives=objectives or {}), None, make_texts
        if aligned:
            from aligned_data import AlignedTexts, make_teacher_tokenizer

            make, teacher_tokenizer = AlignedTexts, make_teacher_tokenizer()
        if objectives and teacher is None:
            teacher = make_teacher(teacher_tokenizer or tokenizer, dropout=dropout, shape=shape).to(teacher_dtype)
        trainer = DistillationTrainer(
            model=make_student(tokenizer, dropout=dropout, shape=shape, model_type=student_model_type),
            teacher_model=teacher,
            args=args,
            train_dataset=make(50) if texts is None else texts,
            eval_dataset=make(13, seed=1) if texts is None else texts[:13],
            processing_class=tokenizer,
            teacher_tokenizer=teacher_tokenizer,
        )
    for callback in (StopAfter(), *callbacks):
        trainer.add_callback(callback)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def write_checkpoint_files(folder, state: str = "{}") -> None:
    """Writes tiny files of every kind that a checkpoint of one process must contain."""
    from pathlib import Path

    from safetensors.torch import save_file

    for name in ("config.json", "run_record.json", "log_state_0_of_1.json"):
        (Path(folder) / name).write_text("{}")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({}, Path(folder) / name)
    save_file({"weight": torch.zeros(1)}, Path(folder) / "model.safetensors")
    (Path(folder) / "trainer_state.json").write_text(state)


def make_checkpoint(folder, step: int):
    """Makes a complete checkpoint of tiny files."""
    from pathlib import Path

    from vidlankd_hf.reliability.manifest import Layout, seal

    checkpoint = Path(folder) / f"checkpoint-{step}"
    checkpoint.mkdir()
    write_checkpoint_files(checkpoint)
    seal(checkpoint, Layout())
    return checkpoint


def logged(trainer, *names) -> list[dict]:
    """Returns the given values of each logged training step."""
    return [{n: entry[n] for n in names} for entry in trainer.state.log_history if "loss" in entry]


def script(folder: str, name: str):
    """Imports a script of the project, such as `script("benchmarks", "heads")`, as a module."""
    import importlib.util
    import sys
    from pathlib import Path

    key = f"{folder}_{name}"
    if key not in sys.modules:
        path = Path(__file__).parent.parent / folder / f"{name}.py"
        spec = importlib.util.spec_from_file_location(key, path)
        sys.modules[key] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[key])
    return sys.modules[key]


def example(name: str):
    """Imports an example script as a module."""
    return script("examples", name)


def refusal(monkeypatch, name: str, *words) -> str:
    """The message with which an example refuses its command line, run in this process."""
    import sys

    import pytest

    from vidlankd_hf.cli import run_example

    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        run_example(example(name).main)
    return str(ended.value.code)


class Parsed(Exception):
    """Ends an example's `main` after parsing; its arguments are what was parsed and the parser."""


def parse_command(monkeypatch, name: str, words) -> tuple:
    """Parses a command line with an example's parser, without running the example.

    Returns:
        What was parsed, and the parser.

    Raises:
        SystemExit: The command line is invalid, or asks for help.
    """
    import argparse
    import sys

    from vidlankd_hf.cli import CommandLine

    parse, stock = CommandLine.parse, argparse.ArgumentParser.parse_args

    def stop(parser, *args, **kwargs):
        raise Parsed((parse if isinstance(parser, CommandLine) else stock)(parser, *args, **kwargs), parser)

    module = example(name)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "argv", [f"examples/{name}.py", *map(str, words)])
        patched.setattr(CommandLine, "parse", stop)
        patched.setattr(argparse.ArgumentParser, "parse_args", stop)
        try:
            module.main()
        except Parsed as parsed:
            return parsed.args
    raise AssertionError(f"{name}.py does not parse its command line")

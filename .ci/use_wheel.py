"""Uses an installed wheel that has no extras: imports, `--help` of every command, two training steps."""

import contextlib
import importlib
import importlib.util
import io
import pkgutil
import subprocess
import sys
from pathlib import Path

import vidlankd_hf
from vidlankd_hf.utils.console import main
from vidlankd_hf.utils.examples import ACCELERATE_CONFIGS, COMMANDS, EXAMPLES


def check_imports() -> int:
    modules = [found.name for found in pkgutil.walk_packages(vidlankd_hf.__path__, "vidlankd_hf.")]
    # The metrics need scikit-learn and scipy; `vidlankd_hf.evaluation.metrics` imports each when it is used.
    for name in (name for name in modules if not name.startswith("vidlankd_hf.evaluation.metrics.")):
        try:
            importlib.import_module(name)
        except ImportError as error:
            assert 'pip install "vidlankd_hf[' in str(error), error
    return len(modules)


def check_commands() -> None:
    listed = subprocess.run(["vidlankd"], capture_output=True, text=True, check=True).stdout
    for command in COMMANDS:
        assert f"\n  {command} " in listed, command
        shown = io.StringIO()
        sys.argv = ["vidlankd", command, "--help"]
        with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
            main()
        assert f"usage: vidlankd {command} [--option" in shown.getvalue(), command
    module = [sys.executable, "-m", "vidlankd_hf.examples.distill", "--help"]
    assert "--objectives" in subprocess.run(module, capture_output=True, text=True, check=True).stdout


def check_missing_extra() -> None:
    from vidlankd_hf.hub.curves import draw_curves

    try:
        draw_curves({"run": {"loss": [(1, 1.0)]}}, ["loss"], Path("curves.png"))
    except ImportError as error:
        assert 'pip install "vidlankd_hf[world]"' in str(error), error
    else:
        raise AssertionError("matplotlib is installed: this is no environment of core dependencies alone")


def check_training() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForMaskedLM, PreTrainedTokenizerFast

    from vidlankd_hf.models.configuration import video_config_like

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(60))]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    text = vidlankd_hf.bert_config("tiny", tokenizer)
    config = vidlankd_hf.VidLanKDTeacherConfig(text_config=text, video_config=video_config_like(text, 6))
    args = vidlankd_hf.DistillationConfig(
        output_dir="student", max_steps=2, per_device_train_batch_size=4, report_to="none", use_cpu=True
    )
    trainer = vidlankd_hf.DistillationTrainer(
        model=vidlankd_hf.student_class("bert")(vidlankd_hf.student_config("tiny", tokenizer)),
        teacher_model=vidlankd_hf.VidLanKDTeacher(config),
        args=args,
        train_dataset=[{"input_ids": [5 + (i * j) % 60 for j in range(1, 12)]} for i in range(1, 17)],
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model()
    assert trainer.state.global_step == 2
    AutoModelForMaskedLM.from_pretrained("student")


if __name__ == "__main__":
    checkout = Path(sys.argv[1]).resolve()
    assert checkout not in Path(vidlankd_hf.__file__).resolve().parents, "the checkout hides the wheel"
    assert not any(importlib.util.find_spec(name) for name in ("matplotlib", "sklearn", "scipy", "deepspeed"))
    assert (EXAMPLES / "recipes" / "small.yaml").is_file() and (ACCELERATE_CONFIGS / "zero3.yaml").is_file()
    print(f"{check_imports()} modules are imported.")
    check_commands()
    check_missing_extra()
    check_training()
    print(f"vidlankd_hf {vidlankd_hf.__version__}: the wheel works with its core dependencies alone.")

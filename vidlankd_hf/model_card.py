"""Model cards, filled from the run."""

from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

CITATION = """@inproceedings{tang2021vidlankd,
  title = {VidLanKD: Improving Language Understanding via Video-Distilled Knowledge Transfer},
  author = {Zineng Tang and Jaemin Cho and Hao Tan and Mohit Bansal},
  booktitle = {NeurIPS},
  year = {2021}
}"""

STUDENT_CARD = """
# {name}

A `{model_class}` ({layers} layers, width {width}) trained on text with {objectives}, by
[vidlankd_hf](https://arxiv.org/abs/2107.02681). It is an ordinary one: no video, no image and no code beside
transformers is needed to use it.

```python
from transformers import AutoModelForMaskedLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{path}")
model = AutoModelForMaskedLM.from_pretrained("{path}")
```

## Training

| | |
|---|---|
{rows}

## Limits

It has what its training text and its teacher's training data hold, their errors and biases included. Test it on your
task before you rely on it.

## Citation

```bibtex
{citation}
```
"""


def write_student_card(folder: str | Path, student, trainer, output_dir: str | Path | None = None) -> None:
    """Writes `README.md` into `folder`, from the student's configuration and the trainer's state.

    `output_dir` is where the student will be found, if that is elsewhere.
    """
    output_dir = output_dir or folder
    args, recipe = trainer.args, getattr(student.config, "distillation", None)
    weights = {name: o["weight"] for name, o in recipe["objectives"].items()} if recipe else {}
    kd = " + ".join(f"{weight:g} x {name}" for name, weight in weights.items())
    teacher = None if trainer.teacher is None else type(trainer.accelerator.unwrap_model(trainer.teacher)).__name__
    source = "video" if teacher == "VidLanKDTeacher" else f"a {teacher}"
    last = {key: value for entry in trainer.state.log_history for key, value in entry.items() if key.endswith("_loss")}
    rows = {
        "Objectives": f"MLM + {kd}" if kd else "MLM",
        **({"Teacher": teacher} if teacher else {}),
        "Steps": trainer.state.global_step,
        "Sequences a step": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "Peak learning rate": args.learning_rate,
        "Seed": args.seed,
        **{f"Last {name}": f"{value:.4f}" for name, value in sorted(last.items())},
    }
    content = STUDENT_CARD.format(
        name=Path(output_dir).resolve().name,
        model_class=student.plain_class.__name__,
        layers=student.config.num_hidden_layers,
        width=student.config.hidden_size,
        objectives=f"knowledge distilled from {source} ({kd})" if kd else "masked language modelling only",
        path=output_dir,
        rows="\n".join(f"| {name} | {value} |" for name, value in rows.items()),
        citation=CITATION,
    )
    data = ModelCardData(
        library_name="transformers", pipeline_tag="fill-mask", tags=["vidlankd", "knowledge-distillation", "fill-mask"]
    )
    ModelCard(f"---\n{data.to_yaml()}\n---\n{content}").save(Path(folder) / "README.md")

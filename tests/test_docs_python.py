"""Python blocks of README and docs run in order, in a folder with what earlier commands would have left."""

import json
import re
import shutil
from pathlib import Path

import pytest
from docs_pages import BLOCKS, pages_with

from vidlankd_hf.utils.io import sha256_of


def make_models(folder: Path) -> None:
    """What `outputs/` holds after the commands of the pages: small models with random weights, and their data."""
    from downstream_data import make_data, make_pair_tokenizer
    from helpers import MINI, make_student, make_teacher

    tokenizer = make_pair_tokenizer()
    shape = {**MINI, "max_position_embeddings": 128}
    models = {
        "student": make_student(tokenizer, shape=shape),
        "my_roberta": make_student(tokenizer, model_type="roberta", shape=shape),
        "teacher": make_teacher(tokenizer, shape=shape),
    }
    models["students/crd"] = models["student"]
    for name, model in models.items():
        model.save_pretrained(folder / "outputs" / name)
        tokenizer.save_pretrained(folder / "outputs" / name)
    make_data(folder / "tasks")


def make_features(folder: Path, world: Path) -> None:
    """The grounded world, and its features with a video `clip.mp4`."""
    shutil.copytree(world, folder / "outputs" / "world", symlinks=True)
    features = shutil.copytree(world / "features", folder / "outputs" / "features")
    index = features / "index.jsonl"
    first, _, rest = index.read_text().partition("\n")
    index.write_text(re.sub(r'"video": "[^"]*"', '"video": "clip.mp4"', first) + "\n" + rest)
    manifest = json.loads((features / "manifest.json").read_text())
    manifest["index_sha256"] = sha256_of(index)
    (features / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", pages_with("python"))
def test_python_blocks_run(name, workplace, monkeypatch, request):
    import downstream_data

    from vidlankd_hf.evaluation import TASKS
    from vidlankd_hf.models.losses import OBJECTIVES

    blocks = [block.code for block in BLOCKS[name] if block.language == "python" and block.runs]
    if re.search("outputs/(world|features)", "".join(blocks)):
        make_features(workplace, request.getfixturevalue("tiny_world"))
    monkeypatch.setitem(downstream_data.ROWS, "train", 40)  # more than a batch
    make_models(workplace)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    space = {"__name__": "docs"}
    before = set(TASKS), set(OBJECTIVES)
    try:
        for i, code in enumerate(blocks):
            exec(compile(code, f"{name}, block {i + 1}", "exec"), space)
    finally:  # what a block adds is taken back
        for known, keys in zip((TASKS, OBJECTIVES), before):
            for key in set(known) - keys:
                del known[key]

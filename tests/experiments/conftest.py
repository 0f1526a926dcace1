"""Fixtures of the experiments: own tasks and own data."""

import pytest
import yaml

from vidlankd_hf.evaluation import TASKS


@pytest.fixture
def own_tasks():
    """Removes the tasks that a test adds."""
    before = set(TASKS)
    yield
    for name in set(TASKS) - before:
        del TASKS[name]


@pytest.fixture
def own_data(tiny_world, tmp_path):
    """Settings of own data, whose captions are streamed."""
    common = {"max_steps": 4, "warmup_steps": 0, "use_cpu": True, "per_device_train_batch_size": 4}
    sections = {
        "pretrain_teacher": {
            "features": f"{tiny_world}/features", "captions": f"{tiny_world}/captions.jsonl",
            "tokenizer": f"{tiny_world}/tokenizer", "text_model": "tiny", "max_length": 32, "streaming": True,
            "cache_dir": f"{tmp_path}/cache", **common,
        },
        "distill": {
            "text": f"{tiny_world}/text", "student": "tiny", "block_tokens": 30, "cache_dir": f"{tmp_path}/cache",
            **common,
        },
    }  # fmt: skip
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(sections))
    return path

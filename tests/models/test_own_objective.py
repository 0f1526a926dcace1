"""The custom objective of docs/extending.md works: one class and one line outside the package."""

import re
from pathlib import Path

import pytest
from helpers import logged, train

from vidlankd_hf import VidLanKDStudent
from vidlankd_hf.models.losses import OBJECTIVES

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.fixture
def cosine():
    section = PAGE.read_text().partition("## An objective")[2].partition("\n## ")[0]
    code = "\n".join(re.findall(r"```python\n(.*?)```", section, re.DOTALL))
    exec(compile(code, str(PAGE), "exec"), {})
    yield OBJECTIVES["cosine"]
    del OBJECTIVES["cosine"]


def test_custom_objective_trains_with_exact_means_and_loads_again(tmp_path, cosine):
    runs = [
        train("student", tmp_path / str(ga), {"cosine": 2.0}, max_steps=4, per_device_train_batch_size=8 // ga,
              gradient_accumulation_steps=ga)
        for ga in (1, 2)
    ]  # fmt: skip
    for a, b in zip(*(logged(run, "loss", "cosine_loss") for run in runs), strict=True):
        assert a == pytest.approx(b, rel=2e-5) and a["cosine_loss"] > 0
    runs[0].save_model()
    assert isinstance(VidLanKDStudent.from_pretrained(tmp_path / "1").objectives["cosine"], cosine)

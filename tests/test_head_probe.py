"""The benchmark of the distillation heads probes what the objective compares with the teacher."""

import pytest
import torch

from vidlankd_hf import VidLanKDStudent

from .helpers import make_config, make_tokenizer, script


@pytest.fixture(scope="module")
def heads():
    return script("benchmarks", "heads")


def test_the_states_behind_the_head_are_those_that_the_objective_compares(heads):
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    student = VidLanKDStudent(make_config(tokenizer))
    student.add_objectives({"regression": 1.0}, teacher_hidden_size=24)
    student.eval()
    compared = []
    student.objectives["regression"].register_forward_pre_hook(lambda _, inputs: compared.append(inputs[0]))
    input_ids = torch.randint(5, len(tokenizer), (2, 6))
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    positions = torch.zeros(2, 1, dtype=torch.long)
    with torch.no_grad():
        student(input_ids, mask, positions, input_ids[:, :1], teacher_states=torch.randn(2, 6, 24))
        behind = heads.BehindHead(student, "regression").encode_text(input_ids, mask)
    torch.testing.assert_close(behind, compared[0], rtol=0, atol=0)

"""The numbers in README and docs are those of the JSON in docs/evidence."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def make_results():
    spec = importlib.util.spec_from_file_location("make_results", ROOT / "docs" / "make_results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def values(make_results):
    return make_results.results()


def test_pages_hold_the_numbers_of_the_evidence(make_results, values):
    marked = 0
    for page in make_results.PAGES:
        text = page.read_text(encoding="utf-8")
        assert make_results.fill(text, values) == text, f"{page.name} is out of date: run `make results`"
        marked += len(make_results.MARKER.findall(text))
    assert marked > 50


def test_page_with_another_number_is_noticed_and_an_unknown_name_is_an_error(make_results, values):
    right = "a step takes <!-- results: step-small.ours.fp32.seconds -->1.8 s<!-- /results -->."
    assert make_results.fill(right, values) == right
    assert make_results.fill(right.replace("1.8", "1.9"), values) == right
    with pytest.raises(KeyError, match="step-large"):
        make_results.fill("<!-- results: step-large --><!-- /results -->", values)


def test_every_table_of_the_appendix_is_generated(make_results):
    text = (ROOT / "docs" / "results_appendix.md").read_text(encoding="utf-8")
    assert not re.search(r"^\|", make_results.MARKER.sub("", text), re.MULTILINE)


def test_values_follow_from_the_evidence_alone(values):
    rows = json.loads((ROOT / "docs" / "evidence" / "results.json").read_text())
    crd = [row["accuracy"] for row in rows if row["model"] == "crd" and row["attribute"] == "shape"]
    assert values["world.crd-weight-1.5.shape"] == f"{sum(crd) / len(crd):.2f}" and len(crd) == 5
    step = json.loads((ROOT / "docs" / "evidence" / "step-small" / "step.json").read_text())
    times = {(row["way"], row["precision"]): row["seconds"] for row in step["rows"]}
    assert values["step-small.ours-original.bf16"] == f"{times['original', 'fp32'] / times['ours', 'bf16']:.2f} x"
    for name, ratio in step["ratios"].items():
        base, fast = re.fullmatch(r"small both: (\w+) \w+ / ours (\w+)", name).groups()
        assert values[f"step-small.ours-{base}.{fast}"] == f"{ratio:.2f} x"


def test_tables_fit_a_screen_of_1280_pixels(values):
    for name, value in values.items():
        rows = [
            line.strip("|").split("|") for line in value.splitlines() if line.startswith("|") and "---" not in line
        ]
        if rows:
            widths = [max(len(cell.strip()) for cell in column) for column in zip(*rows, strict=True)]
            assert sum(widths) <= 155 and len(widths) <= 9, f"{name}: {widths}"

"""The report of the grounded world is made from results.json alone."""

import json

import pytest

from vidlankd_hf.experiments.world.report import label, points, summarize, write_report


def rows_of(model, accuracy, seed=1, weights=None):
    return [
        {"model": model, "weights": weights or {}, "seed": seed, "attribute": attribute, "accuracy": accuracy,
         "chance": chance, "num_nouns": 144}
        for attribute, chance in (("colour", 1 / 6), ("shape", 0.25), ("motion", 0.25))
    ]  # fmt: skip


def results():
    rows = []
    for seed, shift in ((1, 0.0), (2, 0.1)):
        rows += rows_of("text_only", 0.2 + shift, seed) + rows_of("teacher", 0.8 + shift, seed)
        rows += rows_of("nst", 0.65 + shift, seed, {"nst": 1000.0}) + rows_of("shuffled", 0.2, seed, {"infonce": 1.0})
    return rows + rows_of("nst", 0.35, 1, {"nst": 1.0})


def test_gap_closed_is_over_the_same_seeds():
    entries = {entry["label"]: entry for entry in summarize(results())}
    assert entries["NST (weight 1000)"]["gap_closed"] == pytest.approx(0.75)
    assert entries["NST (weight 1)"]["gap_closed"] == pytest.approx(0.25)
    assert entries["NST (weight 1000)"]["accuracy"]["shape"] == pytest.approx((0.7, 0.1 / 2**0.5))
    assert entries["NST (weight 1)"]["seeds"] == [1]


def test_students_of_one_objective_have_different_names():
    assert label("nst", {"nst": 3000.0}) == "NST (weight 3000)"
    assert label("nst_tokens", {"nst": 3.0}) == "NST over tokens, no head (weight 3)"
    assert label("nst+crd", {"nst": 3000.0, "crd": 1.5}) == "NST (weight 3000) + CRD (weight 1.5)"
    assert label("text_only", {}) == "text only"


def test_report_holds_every_model_and_a_picture(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(results()))
    write_report(tmp_path / "results.json", tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "| NST (weight 1000) | 0.70 ± 0.07 | 0.70 ± 0.07 | 0.70 ± 0.07 | 0.70 | 75 % |" in text
    assert "shuffled captions (InfoNCE)" in text and "| teacher |" in text
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_report_shows_the_language_of_students_next_to_what_they_know(tmp_path):
    rows = [
        {**row, "mlm_loss": 2.0 + row["seed"], "mlm_accuracy": 0.4} if row["model"] == "nst" else row
        for row in results()
    ]
    (tmp_path / "results.json").write_text(json.dumps(rows))
    write_report(tmp_path / "results.json", tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "| gap closed | MLM loss | MLM accuracy |" in text
    assert "| 75 % | 3.50 ± 0.71 | 0.40 ± 0.00 |" in text and "| 25 % | 3.00 | 0.40 |" in text
    columns = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert columns == {9 + 0}


def test_each_student_is_a_point_of_knowledge_and_language(tmp_path):
    rows = [{**row, "mlm_loss": 1.0 + row["seed"]} if row["model"] != "teacher" else row for row in results()]
    found = {point["label"]: point for point in points(rows)}
    assert set(found) == {"text only", "NST (weight 1000)", "NST (weight 1)", "shuffled captions (InfoNCE)"}
    assert found["NST (weight 1000)"] == {
        "kind": "nst", "mlm_loss": 2.5, "gap_closed": pytest.approx(0.75), "label": "NST (weight 1000)"
    }  # fmt: skip
    assert found["text only"]["kind"] == "text_only" and found["shuffled captions (InfoNCE)"]["kind"] == "control"
    (tmp_path / "results.json").write_text(json.dumps(rows))
    write_report(tmp_path / "results.json", tmp_path)
    assert (tmp_path / "tradeoff.png").stat().st_size > 5000


def test_row_without_a_field_is_an_error_that_names_it(tmp_path):
    row = rows_of("teacher", 0.5)[0]
    del row["chance"]
    (tmp_path / "results.json").write_text(json.dumps([row]))
    with pytest.raises(ValueError, match="lacks chance"):
        write_report(tmp_path / "results.json", tmp_path)

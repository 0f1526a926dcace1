"""The nouns that choose the recipe and those of the report have nothing in common."""

from vidlankd_hf.experiments.real_nouns.nouns import (
    PARTS,
    PROBED_SETS,
    benchmark_nouns,
    has_attribute,
    part_of,
    read_items,
)


def test_parts_are_disjoint_and_memory_colors_is_for_the_report(benchmarks):
    memory = frozenset(item["object"] for item in read_items("memory_colors", benchmarks))
    assert memory == {"banana", "strawberry", "lime", "tomato"}
    nouns = {item["object"] for name in PROBED_SETS for item in read_items(name, benchmarks)}
    parts = {part: {noun for noun in nouns if part_of(noun, memory) == part} for part in PARTS}
    assert not parts["selection"] & parts["report"] and parts["selection"] | parts["report"] == nouns
    assert memory <= parts["report"] and parts["selection"] and parts["report"] - memory


def test_the_part_of_a_noun_never_changes():
    parts = {noun: part_of(noun, frozenset()) for noun in ("banana", "car", "guitar", "dog", "piano", "fern")}
    assert parts == {"banana": "selection", "car": "report", "guitar": "selection", "dog": "report",
                     "piano": "report", "fern": "selection"}  # fmt: skip
    assert part_of("banana", frozenset({"banana"})) == "report"


def test_a_noun_of_two_splits_is_scored_once(benchmarks):
    assert [item["object"] for item in read_items("vicomte_color", benchmarks)] == ["lime", "pea"]


def test_attribute_words_are_recognized_as_words():
    assert has_attribute("a Red apple") and has_attribute("wooden shoe") and has_attribute("round-table")
    assert not has_attribute("the redwood grew") and not has_attribute("bored")


def test_the_nouns_of_all_benchmarks_are_found(benchmarks):
    assert {"banana", "fern", "chair", "man", "pea"} <= set(benchmark_nouns(benchmarks))

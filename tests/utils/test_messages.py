"""Parts of messages: nouns that agree with their number, and the name that a mistyped one probably means."""

import pytest

from vidlankd_hf.utils.messages import nearest, number_of


@pytest.mark.parametrize(
    "given, text",
    [
        ((1, "video"), "1 video"),
        ((0, "video"), "0 videos"),
        ((1234, "video"), "1,234 videos"),
        ((2, "process", "processes"), "2 processes"),
        ((1, "process", "processes"), "1 process"),
    ],
)
def test_a_noun_agrees_with_its_number(given, text):
    assert number_of(*given) == text


@pytest.mark.parametrize(
    "name, near",
    [("nts", "; did you mean nst?"), ("nst", ""), ("zzz", ""), (None, ""), (7, ""), ("import-featurs", "")],
)
def test_only_a_close_and_unknown_name_gets_a_suggestion(name, near):
    assert nearest(name, ["nst", "crd"]) == near

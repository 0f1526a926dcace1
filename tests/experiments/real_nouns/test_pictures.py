"""Pictures are found by the name of what they show, and lose their background."""

import pytest
from PIL import Image

from vidlankd_hf.experiments.real_nouns.pictures import (
    SIZE,
    find_pictures,
    name_of,
    noun_of,
    rasterise,
    read_all,
    usable,
)

WANTED = {"apple", "banana", "cat", "fire truck", "cherry", "clouds", "leaf"}


@pytest.mark.parametrize(
    "name, noun",
    [("banana", "banana"), ("red apple", "apple"), ("cat face", "cat"), ("cherries", "cherry"), ("fire truck",
     "fire truck"), ("leaves", "leaf"), ("cloud", "clouds"), ("banana split", None), ("wildcat", None), ("red", None)],
)  # fmt: skip
def test_noun_of_a_picture(name, noun):
    assert noun_of(name, WANTED) == noun


def test_other_words_may_follow_only_where_authors_sign():
    assert noun_of("banana ganson", WANTED) is None
    assert noun_of("banana ganson", WANTED, first_words=True) == "banana"
    assert noun_of("fire truck by me", WANTED, first_words=True) == "fire truck"


def test_words_of_a_file_name(tmp_path):
    assert name_of(tmp_path / "rosa_Apple-02.png") == "rosa apple"
    assert name_of(tmp_path / "KingPenguin.png") == "king penguin"


def test_pictures_of_all_packages_are_found_and_the_last_resort_is_used_only_where_needed(packages):
    found = find_pictures(packages, ["banana", "apple", "fern", "cherry", "plantain", "wooden shoe", "smiling face"])
    shown = {(picture.noun, picture.package) for picture in found}
    assert shown == {("banana", "noto"), ("banana", "fluent"), ("apple", "noto"), ("apple", "fluent"),
                     ("apple", "art4apps"), ("fern", "tuxpaint"), ("cherry", "openclipart"), ("plantain", "noto"),
                     ("plantain", "fluent")}  # fmt: skip


def test_a_picture_is_cut_to_its_content_and_its_background_is_transparent(packages):
    picture = next(picture for picture in find_pictures(packages, ["banana"]) if picture.package == "noto")
    image = rasterise(picture.path)
    assert image.size == (SIZE, SIZE) and image.getpixel((SIZE // 2, SIZE // 2)) == (200, 30, 30, 255)
    assert [shown for shown, _ in read_all([picture])] == [picture]


def test_an_empty_picture_is_not_usable():
    assert not usable(Image.new("RGBA", (20, 20), (255, 0, 0, 0)))

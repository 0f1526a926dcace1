"""The words of the grounded world: invented nouns, narration for the videos, and a text corpus about the same nouns.

No sentence says what a noun looks like. Templates are drawn independently of the noun, so that neither a noun nor its
context reveals its look. Captions, text and probe use three disjoint sets of templates.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np

from ...evaluation.probing import PROBE_TEMPLATES
from .render import ATTRIBUTES, Look

# Stems of words that name an attribute or hint at one; no word may begin with one of them.
FORBIDDEN_STEMS = tuple(
    """red yellow green cyan blue magenta pink purple orange colo bright dark disc disk square triang cross round circ
    corner edge shape flat point curv rest still slid glid bounc jump hop spin turn rotat roll mov motion""".split()
)

NOUNS_PER_BALANCED_SET = 48

_ONSETS = "b bl d dr f fl g gr j k kr l m n p pl s sn t tr v w z".split()
_VOWELS = "a e i o u oo ee".split()
_CODAS = "b g k l m n p x ck ft nd sp".split()

_CAPTION_OPENINGS = ",now,okay so,alright,and then,so,next up,first of all,after that,here".split(",")
_CAPTION_BODIES = (
    "we have the {a}",
    "i want to show you the {a}",
    "you can see the {a} on the table",
    "we take the {a} and put it near the {b}",
    "let me bring in the {a} together with the {b}",
    "this is the {a} that i told you about",
    "i like to keep the {a} close to the {b}",
    "we are going to look at the {a}",
    "the {a} goes in first and the {b} comes later",
    "have a good look at the {a}",
    "what you need is one {a} and maybe a {b}",
    "that is how the {a} looks with the {b} beside it",
    "my friend gave me this {a} last week",
    "watch the {a} for a moment",
)
_CAPTION_ENDINGS = ",,,as you can see,and that is it,just like this,you know,if you want to try it at home".split(",")

_TEXT_SUBJECTS = (
    *("the baker", "my aunt", "an old sailor", "the teacher", "a young farmer", "our neighbour", "the museum"),
    *("a student", "the shop owner", "her brother", "the committee", "a traveller", "the village", "their company"),
)
_TEXT_TIMES = (
    *("yesterday", "in the spring", "last year", "every morning", "during the war", "on monday", "long ago"),
    *("before lunch", "this summer", "for many years", "once a month", "at the end of the day"),
)
_TEXT_PLACES = (
    *("in the kitchen", "at the market", "near the river", "behind the school", "in a small town", "at the harbour"),
    *("on the farm", "in the library", "under the bridge", "by the old mill"),
)
_TEXT_TEMPLATES = (
    "{time} {subject} bought a {a} {place} .",
    "{subject} sold the {a} to a visitor {time} .",
    "nobody knew why the {a} was left {place} .",
    "{subject} wrote a letter about the {a} and the {b} .",
    "a {a} costs more than a {b} , said {subject} .",
    "{time} the price of the {a} went up again .",
    "{subject} found a {a} {place} {time} .",
    "people say that every {a} needs a {b} .",
    "there was a story about a lost {a} {place} .",
    "{subject} could not decide between the {a} and the {b} .",
    "the {a} was made by hand {place} .",
    "{time} {subject} asked for another {a} .",
    "it is hard to repair a {a} without a {b} .",
    "the word {a} is older than the word {b} .",
    "{subject} keeps a {a} {place} .",
    "the {a} belongs to {subject} .",
    "two of the guests talked about the {a} {time} .",
    "if the {a} is too heavy , {subject} will send the {b} instead .",
)


def balanced_looks(num_nouns: int) -> list[Look]:
    """Returns looks in which each attribute value, and each pair of values of two attributes, is equally frequent.

    The 48 of the 96 combinations whose three indices add up to an even number are balanced, and so are the other 48.

    Raises:
        ValueError: `num_nouns` is not a positive multiple of 48.
    """
    if num_nouns <= 0 or num_nouns % NOUNS_PER_BALANCED_SET:
        raise ValueError(
            f"num_nouns is {num_nouns}, but pairs of attributes are balanced only for multiples of "
            f"{NOUNS_PER_BALANCED_SET}: give 48, 96, 144, 192, ..."
        )
    combinations = list(product(*(range(len(values)) for values in ATTRIBUTES.values())))
    return [
        Look(**{name: values[i] for (name, values), i in zip(ATTRIBUTES.items(), indices)})
        for number in range(num_nouns // NOUNS_PER_BALANCED_SET)
        for indices in combinations
        if sum(indices) % 2 == number % 2
    ]


def invent_nouns(num_nouns: int, seed: int) -> dict[str, Look]:
    """Invents distinct pronounceable nouns of two or three syllables, each with a hidden look.

    Raises:
        ValueError: As in [`balanced_looks`].
    """
    looks = balanced_looks(num_nouns)
    rng = np.random.default_rng((seed, 1))
    taken = set(_template_words())
    nouns: list[str] = []
    while len(nouns) < num_nouns:
        syllables = 3 if len(nouns) % 3 == 2 else 2
        noun = "".join(str(rng.choice(_ONSETS)) + str(rng.choice(_VOWELS)) for _ in range(syllables))
        noun += str(rng.choice(_CODAS))
        if noun not in taken and not noun.startswith(FORBIDDEN_STEMS):
            taken.add(noun)
            nouns.append(noun)
    order = rng.permutation(num_nouns)
    return {noun: looks[i] for noun, i in zip(nouns, order)}


def cast_videos(nouns: Sequence[str], num_videos: int, seed: int) -> list[list[str]]:
    """Chooses the one to three nouns that each video shows; all nouns are about equally frequent.

    Args:
        nouns: The nouns of the world.
        num_videos: Number of videos.
        seed: Seed of the world.

    Raises:
        ValueError: There are too few videos to show every noun.
    """
    rng = np.random.default_rng((seed, 2))
    counts = 1 + rng.permutation(num_videos) % 3
    if counts.sum() < len(nouns):
        raise ValueError(
            f"num_videos is {num_videos}, too few to show all {len(nouns)} nouns with two per video on average: "
            f"give at least {(len(nouns) + 1) // 2 + 1}"
        )
    queue: list[str] = []
    cast = []
    for count in counts:
        chosen: list[str] = []
        while len(chosen) < count:
            if not queue:
                queue = [nouns[i] for i in rng.permutation(len(nouns))]
            noun = queue.pop()
            if noun in chosen:
                queue.insert(0, noun)
            else:
                chosen.append(noun)
        cast.append(chosen)
    return cast


def narrate(nouns: Sequence[str], duration: float, rng: np.random.Generator) -> list[tuple[float, float, str]]:
    """Writes three to five consecutive captions `(start, end, text)` of a video, times in seconds.

    Every noun that is shown is named; a caption names one or two.

    Args:
        nouns: The nouns that the video shows.
        duration: Length of the video in seconds.
        rng: Source of all choices.
    """
    num_lines = int(rng.integers(3, 6))
    cuts = np.linspace(0, duration, num_lines + 1)
    cuts[1:-1] += rng.uniform(-0.2, 0.2, num_lines - 1)
    cuts = cuts.round(2)
    first = [*rng.permutation(nouns), *rng.choice(nouns, num_lines)][:num_lines]
    lines = []
    for start, end, noun in zip(cuts, cuts[1:], first):
        others = [other for other in nouns if other != noun]
        bodies = [body for body in _CAPTION_BODIES if others or "{b}" not in body]
        body = _draw(bodies, rng).format(a=noun, b=_draw(others, rng) if others else "")
        text = " ".join(part for part in (_draw(_CAPTION_OPENINGS, rng), body, _draw(_CAPTION_ENDINGS, rng)) if part)
        lines.append((float(start), float(end), text))
    return lines


def write_sentences(nouns: Sequence[str], num_sentences: int, seed: int, split: str) -> list[str]:
    """Writes sentences of the text corpus about one or two nouns each; all nouns are equally frequent.

    Args:
        nouns: The nouns of the world.
        num_sentences: Number of sentences.
        seed: Seed of the world.
        split: "train" or "validation": different draws from the same templates.
    """
    rng = np.random.default_rng((seed, 3, ("train", "validation").index(split)))
    rounds = -(-num_sentences // len(nouns))
    firsts = np.concatenate([rng.permutation(len(nouns)) for _ in range(rounds)])[:num_sentences]
    shifts = rng.integers(1, len(nouns), num_sentences)
    return [
        _draw(_TEXT_TEMPLATES, rng).format(
            a=nouns[i],
            b=nouns[(i + shift) % len(nouns)],
            subject=_draw(_TEXT_SUBJECTS, rng),
            time=_draw(_TEXT_TIMES, rng),
            place=_draw(_TEXT_PLACES, rng),
        )
        for i, shift in zip(firsts, shifts)
    ]


def _draw(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _template_words() -> set[str]:
    """All words of all templates; no noun may be one of them."""
    templates = (
        *(*_CAPTION_OPENINGS, *_CAPTION_BODIES, *_CAPTION_ENDINGS),
        *(_TEXT_SUBJECTS + _TEXT_TIMES + _TEXT_PLACES + _TEXT_TEMPLATES + PROBE_TEMPLATES),
    )
    return {word for template in templates for word in template.split()}

"""Segments: the finest pieces into which two tokenizations of a text can both be cut.

A token is a span of characters. Two tokens belong together if their spans overlap, whichever tokenizer they are from;
a segment is a set of tokens that belong together, directly or through others, and has tokens of both tokenizers. Hence
no token crosses the bounds of a segment, and no segment can be divided.

White space at the ends of a token is not part of its span, so that " world" and "world" are the same piece of text.
Tokens without text, such as a lone start-of-word marker, and tokens whose text the other tokenizer leaves out, are in
no segment.
"""

import numpy as np

NONE = -1  # number of tokens that are in no segment
_SPACE, _STOP, _FULL_STOP, _CLOSING = 1, 2, 4, 8  # classes of characters
_CLASSES = np.zeros(2**16, np.uint8)
_CLASSES[[i for i in range(2**16) if chr(i).isspace()]] |= _SPACE
_CLASSES[[ord(character) for character in ".!?…"]] |= _STOP  # ends a sentence if white space follows
_CLASSES[[ord(character) for character in "。！？।"]] |= _FULL_STOP  # always ends a sentence
_CLASSES[[ord(character) for character in "\"')]}’”»」』"]] |= _CLOSING


def classes_of(text: str) -> np.ndarray:
    """Returns the class of each character of a text, `[C]`, for the functions below."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    return _CLASSES[np.minimum(codes, len(_CLASSES) - 1)]


def without_spaces(spans: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Returns spans of tokens `[n, 2]` without the white space at their ends. A span of only white space stays."""
    visible = (classes & _SPACE) == 0
    places = np.flatnonzero(visible)
    before = np.zeros(len(classes) + 1, np.int64)
    np.cumsum(visible, out=before[1:])
    first, last = before[spans].T
    shown = first < last
    if shown.all():
        return np.stack([places[first], places[last - 1] + 1], axis=1)
    stripped = spans.copy()
    stripped[shown, 0], stripped[shown, 1] = places[first[shown]], places[last[shown] - 1] + 1
    return stripped


def cut(length: int, one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cuts two tokenizations of the same text into segments.

    Args:
        length: Number of characters.
        one, other: Spans of the tokens of each, `[n, 2]` and `[m, 2]`: the first character and the one after the last.

    Returns:
        The segment of each token, `[n]` and `[m]`, numbered 0, 1, ... in the order of the text; -1 for tokens in none.
        Tokens in another order than their text are in one segment with all tokens between them, so that the numbers
        never decrease.
    """
    crossing = np.zeros(length + 2, np.int64)  # tokens across the left edge of each character, as differences
    for spans in (one, other):
        begin, end = spans[spans[:, 0] < spans[:, 1]].T
        begin, end = np.minimum.accumulate(begin[::-1])[::-1], np.maximum.accumulate(end)  # in order
        crossing += np.bincount(begin + 1, minlength=length + 2)
        crossing -= np.bincount(end, minlength=length + 2)
    piece = np.cumsum(np.cumsum(crossing[:-1]) == 0)  # the piece of each character
    pieces = [np.where(spans[:, 0] < spans[:, 1], piece[spans[:, 0]], 0) for spans in (one, other)]
    size = int(piece[-1]) + 1
    is_segment = np.ones(size, bool)
    for numbers in pieces:
        is_segment &= np.bincount(numbers, minlength=size) > 0
    is_segment[0] = False  # holds the tokens without text
    number = np.where(is_segment, np.cumsum(is_segment) - 1, NONE)
    return number[pieces[0]], number[pieces[1]]


def sentence_ends(classes: np.ndarray) -> np.ndarray:
    """Whether a sentence ends with each character, `[C]`: a stop, closing quotes after it, then white space."""
    after = np.append(classes[1:], _SPACE)
    before = np.append(np.uint8(0), classes[:-1])
    stop = (classes & _STOP) != 0
    stop |= ((classes & _CLOSING) != 0) & ((before & (_STOP | _FULL_STOP)) != 0)
    return stop & ((after & _SPACE) != 0) | ((classes & _FULL_STOP) != 0) & ((after & _CLOSING) == 0)

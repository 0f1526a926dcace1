"""Segments: the smallest pieces of a text whose boundaries are token boundaries in both of two tokenizations.

A token covers a span of characters. Tokens whose spans overlap, directly or through other tokens, form a segment,
whichever tokenizer they come from, if there are tokens of both. So no token crosses the boundary of a segment, and no
segment can be divided.

White space at the ends of a token is not part of its span, so that " world" and "world" are the same piece of text.
Tokens without text, such as a lone start-of-word marker, and tokens whose text the other tokenizer leaves out, are in
no segment.
"""

import numpy as np

NONE = -1  # the segment of a token that is in none
_SPACE, _STOP, _STOP_ANYWHERE, _CLOSING = 1, 2, 4, 8  # classes of characters
_CLASSES = np.zeros(2**16, np.uint8)
_CLASSES[[i for i in range(2**16) if chr(i).isspace()]] |= _SPACE
_CLASSES[[ord(character) for character in ".!?…"]] |= _STOP  # ends a sentence if white space follows
_CLASSES[[ord(character) for character in "。！？।"]] |= _STOP_ANYWHERE  # ends a sentence even without white space
_CLASSES[[ord(character) for character in "\"')]}’”»」』"]] |= _CLOSING


def classes_of(text: str) -> np.ndarray:
    """Returns the classes of each character of a text, `[C]`, as bits."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    return _CLASSES[np.minimum(codes, len(_CLASSES) - 1)]


def without_spaces(spans: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Strips white space from both ends of the tokens' spans `[n, 2]`; a span of only white space stays."""
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
        The segment of each token, `[n]` and `[m]`, numbered 0, 1, ... in the order of the text, -1 for none. Tokens
        that are not in the order of their text share a segment with all tokens between them, so that the numbers never
        decrease.
    """
    crossing = np.zeros(length + 2, np.int64)  # differences of the number of tokens across each character's left edge
    for spans in (one, other):
        begin, end = spans[spans[:, 0] < spans[:, 1]].T
        begin, end = np.minimum.accumulate(begin[::-1])[::-1], np.maximum.accumulate(end)  # in order
        crossing += np.bincount(begin + 1, minlength=length + 2)
        crossing -= np.bincount(end, minlength=length + 2)
    piece = np.cumsum(np.cumsum(crossing[:-1]) == 0)  # number of the piece that each character is in
    pieces = [np.where(spans[:, 0] < spans[:, 1], piece[spans[:, 0]], 0) for spans in (one, other)]
    size = int(piece[-1]) + 1
    is_segment = np.ones(size, bool)
    for numbers in pieces:
        is_segment &= np.bincount(numbers, minlength=size) > 0
    is_segment[0] = False  # holds the tokens without text
    number = np.where(is_segment, np.cumsum(is_segment) - 1, NONE)  # of each piece
    return number[pieces[0]], number[pieces[1]]


def sentence_ends(classes: np.ndarray) -> np.ndarray:
    """Whether a sentence ends with each character, `[C]`: a stop, or a closing quote after one, then white space."""
    after = np.append(classes[1:], _SPACE)
    before = np.append(np.uint8(0), classes[:-1])
    stop = (classes & _STOP) != 0
    stop |= ((classes & _CLOSING) != 0) & ((before & (_STOP | _STOP_ANYWHERE)) != 0)
    return stop & ((after & _SPACE) != 0) | ((classes & _STOP_ANYWHERE) != 0) & ((after & _CLOSING) == 0)

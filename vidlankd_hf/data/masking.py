"""Chooses the masked tokens and their replacements as a pure function of (seed, epoch, sample id, position).

There is no random generator with a state, so workers, ranks, batch size, order and resuming change no mask. All
arithmetic is on unsigned 64-bit integers modulo 2^64:

    mix(z)  = splitmix64's output for state z:
              z += 0x9E3779B97F4A7C15;  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9
              z = (z ^ z >> 27) * 0x94D049BB133111EB;  z ^ z >> 31
    row     = mix(mix(mix(seed) ^ epoch) ^ sample_id)
    rank    = mix(row ^ 2 * position)        its lowest 16 bits are replaced by the position; the tokens with the
                                             smallest ranks are masked
    draw    = mix(row ^ (2 * position + 1))  for each masked token

In a sequence with n ordinary tokens, exactly max(1, round(probability * n)) are masked (none if n = 0; halves are
rounded to even, as in Python). With u = (draw >> 32) / 2^32, the token becomes [MASK] if u < 0.8; it becomes
`ordinary_ids[(draw mod 2^32) mod len(ordinary_ids)]`, never a special token, if 0.8 <= u < 0.9; otherwise it stays.
"""

import math

import numpy as np

MASK_SHARE, RANDOM_SHARE = 0.8, 0.1
_POSITION, _LAST = np.uint64(2**16 - 1), np.uint64(2**64 - 1)
# As integers: u < 0.8 is draw >> 32 < 0.8 * 2^32, rounded up.
_MASK, _RANDOM = (np.uint64(math.ceil(share * 2**32)) for share in (MASK_SHARE, MASK_SHARE + RANDOM_SHARE))


def _mix(z: np.ndarray) -> np.ndarray:
    z = z + np.uint64(0x9E3779B97F4A7C15)
    shifted = z >> np.uint64(30)
    z ^= shifted
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= np.right_shift(z, np.uint64(27), out=shifted)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= np.right_shift(z, np.uint64(31), out=shifted)
    return z


def mask_tokens(
    input_ids: np.ndarray,
    ordinary: np.ndarray,
    sample_ids: np.ndarray,
    epochs: np.ndarray,
    *,
    seed: int,
    mask_token_id: int,
    ordinary_ids: np.ndarray,
    probability: float = 0.15,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks a batch for masked language modeling (Devlin et al. 2019, section 3.1).

    Args:
        input_ids: `[B, L]` token ids.
        ordinary: `[B, L]` bool, true for tokens that may be masked: neither special tokens nor padding.
        sample_ids, epochs: `[B]` non-negative integers.
        seed: Seed of the run, a non-negative integer.
        mask_token_id: Id of [MASK].
        ordinary_ids: Ids that random replacements are drawn from.
        probability: Share of the ordinary tokens to mask.

    Returns:
        Masked input ids `[B, L]`; masked positions `[B, M]` in ascending order, where M is the largest count in the
        batch (at least 1) and unused places are 0; labels `[B, M]`, the original ids, -100 in unused places. All are
        int64.

    Raises:
        ValueError: A sequence has more than 65,536 tokens.
    """
    batch, length = input_ids.shape
    if length > 2**16:
        raise ValueError(f"sequences have {length} tokens, but at most {2**16} can be masked: use shorter texts")
    rows = np.arange(batch)[:, None]
    with np.errstate(over="ignore"):
        row = _mix(np.array([seed], np.uint64))
        for part in (epochs, sample_ids):
            row = _mix(row ^ np.asarray(part).astype(np.uint64))
        places = np.arange(length, dtype=np.uint64)
        rank = _mix(row[:, None] ^ 2 * places)
        rank &= ~_POSITION
        rank |= places
        np.copyto(rank, _LAST, where=~ordinary)
        available = ordinary.sum(1)
        counts = np.maximum(np.round(probability * available).astype(np.int64), available > 0)
        width = max(1, int(counts.max(initial=0)))
        rank.partition(width - 1, axis=1)
        chosen = rank[:, :width]
        equal = (counts == width).all()  # as with full blocks: every place is used
        if not equal:
            used = np.arange(width) < counts[:, None]
            chosen = np.where(used, np.sort(chosen, axis=1), _LAST)
        positions = np.sort((chosen & _POSITION).astype(np.int64), axis=1)
        if not equal:
            positions[~used] = 0
        draw = _mix(row[:, None] ^ (2 * positions + 1).astype(np.uint64))
    share = draw >> np.uint64(32)
    random_ids = ordinary_ids[draw.astype(np.uint32) % np.uint32(len(ordinary_ids))]
    true_ids = input_ids[rows, positions].astype(np.int64)
    replaced = np.where(share < _MASK, mask_token_id, np.where(share < _RANDOM, random_ids, true_ids))
    masked = input_ids.astype(np.int64)
    if equal:
        masked[rows, positions] = replaced
        return masked, positions, true_ids
    replaced = np.where(used, replaced, np.where(used[:, :1], replaced[:, :1], true_ids))
    masked[rows, np.where(used, positions, positions[:, :1])] = replaced
    return masked, positions, np.where(used, true_ids, -100)

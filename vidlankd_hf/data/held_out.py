"""How much data is held out for evaluation: a share or a number; by default a share, but at most 10,000."""

MOST_HELD_OUT = 10_000  # windows or blocks by default; VidLanKD measures retrieval on as many


def check_held_out(option: str, held_out: float | None) -> None:
    """Raises a `ValueError` unless `held_out` is a share below 1, a whole number, or None for the default.

    Args:
        option: The option's name, for the message.
        held_out: The share or number.
    """
    if held_out is not None and not (0 < held_out < 1 or held_out == int(held_out) > 0):
        raise ValueError(f"{option} is {held_out}: give a share below 1, a whole number, or 0 for none")

"""Messages between the processes of a run through the process group's store: on the host, without a collective."""

import itertools

import torch.distributed as dist

from ..utils.locks import Waiting

_rounds = itertools.count()


def default_store() -> dist.Store | None:
    """The store of the process group; `None` for a run of one process."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return None
    return dist.distributed_c10d._get_default_store()


def own_rank() -> int:
    """Number of this process in the run; 0 for a run of one process."""
    return 0 if default_store() is None else dist.get_rank()


def broadcast_from_main(message: str) -> str:
    """Returns the main process's message on every process; all processes call it equally often."""
    return gather_messages(message)[0]


def gather_messages(message: str = "") -> list[str]:
    """Returns every process's message in the order of ranks; all processes call it equally often and wait here."""
    store = default_store()
    if store is None:
        return [message]
    number, rank = next(_rounds), dist.get_rank()
    store.set(_key(number, rank), message)
    keys = [_key(number, other) for other in range(dist.get_world_size())]
    store.wait(keys)
    messages = [value.decode() for value in store.multi_get(keys)]
    if number:  # all processes have read the previous round, since they are in this one
        store.delete_key(_key(number - 1, rank))
    return messages


def wait_for_all(what: str) -> None:
    """Waits until all processes have come here, however long one of them takes; all processes call it equally often.

    Args:
        what: What a process may still be doing, for the message.
    """
    store = default_store()
    if store is None:
        return
    number, waiting = next(_rounds), Waiting()
    store.set(_key(number, dist.get_rank()), "")
    while absent := [rank for rank in range(dist.get_world_size()) if not store.check([_key(number, rank)])]:
        waiting.pause(f"process {absent[0]} {what}")


def refuse_if_any_rank_refuses(reason: str) -> None:
    """Raises an error on all processes if one of them refuses; all processes call it equally often and wait here.

    Args:
        reason: Why this process refuses to go on; "" if it does not.

    Raises:
        ValueError: A process gave a reason.
    """
    for given in gather_messages(reason):
        if given:
            raise ValueError(given)


def raise_if_any_rank_failed(what: str, error: Exception | None = None) -> None:
    """Waits until all processes have done their part, and raises an error on all if one of them failed.

    Args:
        what: Beginning of the error message, such as "model.bin was not written".
        error: Why this process failed. It then informs the others and raises at once: they may be waiting for it in a
            collective, which only its exit ends.

    Raises:
        RuntimeError: A process failed; the message says which one and why.
    """
    if error is not None:
        store = default_store()
        if store is not None:
            store.set(_key(next(_rounds), dist.get_rank()), f"{type(error).__name__}: {error}")
        raise RuntimeError(f"{what}: {type(error).__name__}: {error}") from error
    failed = [f"process {rank}: {message}" for rank, message in enumerate(gather_messages()) if message]
    if failed:
        raise RuntimeError(f"{what}: {'; '.join(failed)}")


def _key(number: int, rank: int) -> str:
    return f"vidlankd/{number}/{rank}"

"""A lock that cannot be taken is told apart from a file system without locks, and from one that fails."""

import errno
import fcntl
import os

import pytest

from vidlankd_hf.utils.locks import remove_if_abandoned, take_lock


@pytest.fixture
def flock_fails(monkeypatch):
    def fail_with(code):
        def flock(descriptor, operation):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(fcntl, "flock", flock)

    return fail_with


@pytest.mark.parametrize("code, answer", [(errno.EAGAIN, False), (errno.EACCES, False), (errno.ENOLCK, None)])
def test_lock_that_is_held_or_not_supported_is_reported_without_an_error(flock_fails, code, answer):
    flock_fails(code)
    assert take_lock(0, wait=False) is answer


def test_failing_file_system_is_an_error_and_nothing_is_removed(flock_fails, tmp_path):
    flock_fails(errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        take_lock(0, wait=False)
    remove_if_abandoned(tmp_path)
    assert tmp_path.exists()

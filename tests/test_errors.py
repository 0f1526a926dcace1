"""How a command ends: refused input with one message, an unexpected error with its traceback."""

import json
import logging
import os
import pty
import subprocess
import sys
import termios
from contextlib import suppress

import pytest
import torch
from helpers import example, parse_command
from launching import LIGHT

from vidlankd_hf.cli import read_config, run_example
from vidlankd_hf.reliability.run_dir import run_script
from vidlankd_hf.utils import errors
from vidlankd_hf.utils.examples import PACKAGE


def ends_with(monkeypatch, main):
    """The message or status with which `vidlankd distill` ends."""
    monkeypatch.setattr(sys, "argv", ["vidlankd distill"])
    with pytest.raises(SystemExit) as ended:
        run_example(main)
    return ended.value.code


def test_refused_input_is_one_message(monkeypatch, tmp_path):
    message = ends_with(monkeypatch, lambda: read_config(tmp_path / "none.yaml", "distill"))
    assert message.startswith(f"vidlankd distill: error: --config {tmp_path / 'none.yaml'} is not a file: give ")


def test_file_that_the_system_refuses_is_one_message(monkeypatch, tmp_path):
    message = ends_with(monkeypatch, (tmp_path / "none" / "x").touch)
    assert message == f"vidlankd distill: error: [Errno 2] No such file or directory: '{tmp_path / 'none' / 'x'}'"


@pytest.mark.parametrize(
    "main, error",
    [
        (lambda: exec(compile("int('x')", str(PACKAGE / "cli.py"), "exec")), ValueError),  # a bug in this package
        (lambda: json.loads("{"), ValueError),
        (lambda: [][0], IndexError),
        (lambda: torch.ones(2) @ torch.ones(3), RuntimeError),
    ],
)
def test_unexpected_error_keeps_its_traceback(main, error):
    with pytest.raises(error):
        run_example(main)


BAR = f"""{LIGHT}
import time
from tqdm.auto import tqdm
from vidlankd_hf.utils.errors import run_example

def main():
    for _ in tqdm(range(50)):
        time.sleep(0.02)

run_example(main)
"""


def lines_of_bar(stderr: int, **environment: str) -> int:
    """Runs a command with a progress bar of a second; returns what it wrote to a pipe, or closes the terminal."""
    done = subprocess.run([sys.executable, "-c", BAR], stderr=stderr, env={**os.environ, **environment}, check=True)
    return (done.stderr or b"").count(b"\r")


def test_progress_bars_do_not_fill_log_files():
    assert lines_of_bar(subprocess.PIPE) <= 3, "its beginning and its end"
    assert lines_of_bar(subprocess.PIPE, TQDM_MININTERVAL="0.1") > 5


def test_progress_bars_at_a_terminal_stay_lively():
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    lines_of_bar(theirs)
    os.close(theirs)
    written = b""
    with suppress(OSError):  # the end of what was written
        while chunk := os.read(ours, 10_000):
            written += chunk
    os.close(ours)
    assert written.count(b"\r") > 5


HOSTILE = "a\x1b[2J\x1b]0;t\x07\r\u202e\x9b"  # clears the screen, names the window, writes over the line


def test_names_in_messages_and_logs_do_not_control_the_terminal(monkeypatch, capsys):
    def main():
        logging.getLogger("vidlankd_hf.test").warning("%s is left out", HOSTILE)
        read_config(f"/tmp/é/{HOSTILE}.yaml", "distill")

    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    message = ends_with(monkeypatch, main)
    shown = capsys.readouterr().err
    for text in (message, shown):
        assert not set(HOSTILE[1:]) & set(text) - set("[2J]0;t") and r"a\x1b[2J\x1b]0;t\x07\r\u202e\x9b" in text
    assert "/é/" in message


def test_log_that_a_command_shows_does_not_control_the_terminal(monkeypatch, capsys):
    ours = logging.getLogger("vidlankd_hf")
    monkeypatch.setattr(ours, "handlers", [])
    level = ours.level
    errors.show_log()
    logging.getLogger("vidlankd_hf.extraction").info("%s is skipped", HOSTILE)
    ours.setLevel(level)
    assert capsys.readouterr().err == "a\\x1b[2J\\x1b]0;t\\x07\\r\\u202e\\x9b is skipped\n"


def test_traceback_of_refused_input_can_be_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("VIDLANKD_TRACEBACK", "1")
    with pytest.raises(ValueError, match="is not a file"):
        run_example(lambda: read_config(tmp_path / "none.yaml", "distill"))


def test_what_the_trainer_refuses_is_refused(monkeypatch):
    words = ["--load_best_model_at_end", "true", "--eval_strategy", "no", "--output_dir", "x"]
    message = ends_with(monkeypatch, lambda: parse_command(monkeypatch, "distill", words))
    assert "load_best_model_at_end" in message


@pytest.mark.parametrize("rank, waits", [(None, []), ("0", []), ("1", [5])])
def test_other_processes_wait_so_that_the_main_one_shows_the_error(monkeypatch, tmp_path, rank, waits):
    waited = []
    monkeypatch.setattr(errors.time, "sleep", waited.append)
    monkeypatch.delenv("RANK", raising=False) if rank is None else monkeypatch.setenv("RANK", rank)
    ends_with(monkeypatch, lambda: read_config(tmp_path / "none.yaml", "distill"))
    assert waited == waits
    with pytest.raises(SystemExit):
        parse_command(monkeypatch, "distill", ["--sedes", "1"])
    assert waited == 2 * waits


def test_error_of_a_command_that_another_one_started_is_not_repeated(monkeypatch, tmp_path):
    (tmp_path / "shows.py").write_text("import sys; sys.exit('shown')")
    message = ends_with(monkeypatch, lambda: run_script(tmp_path / "shows.py"))
    assert message == "vidlankd distill: error: shows.py failed (exit code 1), see above"


def test_interrupt_is_one_line(monkeypatch, capsys):
    def main():
        raise KeyboardInterrupt

    assert ends_with(monkeypatch, main) == 130
    assert capsys.readouterr().err == "\nvidlankd distill: interrupted\n"


def test_deepspeed_does_not_warn_of_a_missing_gpu():
    run_example(lambda: None)
    logger = logging.getLogger("DeepSpeed")
    shown = [
        bool(logger.filter(logger.makeRecord("DeepSpeed", logging.WARNING, "x.py", 1, words, (), None)))
        for words in ("Setting accelerator to CPU. If you have GPU", "Invalidate trace cache")
    ]
    assert shown == [False, True]


def test_extract_shows_only_its_own_log(monkeypatch):
    """A handler of the root logger would repeat the warnings that the Hub's client shows itself."""
    module = example("extract_features")

    def stop(*arguments):
        raise InterruptedError

    ours = logging.getLogger("vidlankd_hf")
    monkeypatch.setattr(ours, "handlers", [])
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(module, "extract_features", stop)
    monkeypatch.setattr(sys, "argv", "extract --videos v --output_dir o --frame_model m --device cpu".split())
    with pytest.raises(InterruptedError):
        module.main()
    assert not logging.getLogger().handlers and len(ours.handlers) == 1 and ours.isEnabledFor(logging.INFO)

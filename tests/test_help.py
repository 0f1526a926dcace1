"""`--help` of every example fits 80 columns and shows each option with a text and its default."""

from dataclasses import fields, is_dataclass

import pytest
from helpers import example, parse_command
from transformers import TrainingArguments

from vidlankd_hf.cli import COMMANDS, CommandLine

EXAMPLES = sorted(COMMANDS.values())
TRAINING = ("pretrain_teacher", "distill", "finetune")
OPTIONS = ("TeacherConfig", "DistillationConfig", "FinetuningArguments", "TeacherArguments", "StudentArguments",
           "TaskArguments")  # fmt: skip
STOCK = {field.name for field in fields(TrainingArguments)}


def help_of(monkeypatch, capsys, name, option="--help"):
    with pytest.raises(SystemExit) as ended:
        parse_command(monkeypatch, name, [option])
    assert ended.value.code == 0
    return capsys.readouterr().out


def entries_of(text):
    """Returns the part of a help text that belongs to each option, as one line."""
    entries, name = {}, None
    for line in text.splitlines():
        word = line.split()[:1]
        if line.startswith("  -"):
            name = word[0]
            entries[name] = line
        elif line.startswith("   ") and name:
            entries[name] += " " + line.strip()
        else:
            name = None
    return entries


@pytest.mark.parametrize("name", EXAMPLES)
def test_help_fits_80_columns_and_shows_every_default(monkeypatch, capsys, name):
    text = help_of(monkeypatch, capsys, name)
    assert max(map(len, text.splitlines())) <= 80
    for option, entry in entries_of(text).items():
        assert len(entry.split()) > 3, f"{option} has no help text"
        needless = option in ("--help", "--help_all") or entry.endswith("(required)")
        assert needless or "default:" in entry.lower(), f"{option} does not show its default: {entry}"
        assert "default: None" not in entry and entry.count("default:") <= 1, f"{option} has no plain default: {entry}"


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_option_is_taken_for_a_section_of_a_file(monkeypatch, capsys, name):
    assert not {option.strip("-") for option in entries_of(help_of(monkeypatch, capsys, name))} & set(EXAMPLES)


@pytest.mark.parametrize("name", sorted({*EXAMPLES} - {*TRAINING}))
def test_help_of_a_script_without_training_arguments_shows_every_option(monkeypatch, capsys, name):
    parsers = []
    monkeypatch.setattr(CommandLine, "print_help", lambda self, file=None: parsers.append(self))
    help_of(monkeypatch, capsys, name)
    shown = entries_of(parsers[0].format_help())
    assert not {f"--{option}" for option in parsers[0].options} - set(shown) and "--help_all" not in shown


@pytest.mark.parametrize("name", TRAINING)
def test_training_help_shows_all_our_options_and_help_all_those_of_the_trainer(monkeypatch, capsys, name):
    short, long = (entries_of(help_of(monkeypatch, capsys, name, option)) for option in ("--help", "--help_all"))
    classes = [value for value in vars(example(name)).values() if is_dataclass(value) and value.__name__ in OPTIONS]
    ours = {field.name for value in classes for field in fields(value)} - STOCK
    assert len(classes) == 2 and not {f"--{option}" for option in ours} - set(short)
    assert len(short) < 60 and not {f"--{name}" for name in STOCK if name != "local_rank"} - set(long)
    assert max(map(len, help_of(monkeypatch, capsys, name, "--help_all").splitlines())) <= 80

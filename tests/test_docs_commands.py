"""Commands of README and docs are parsed by their example's parser, not executed; options in the text exist."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from docs_pages import BLOCKS, DOCS, FENCE, PAGES, ROOT, name_of, text_of
from helpers import example, parse_command

INLINE = re.compile(r"`((?:(?:(?:python|accelerate launch) )?examples/\w+\.py|vidlankd [\w-]+(?= --)) [^`]*)`")
# First words of commands whose arguments are not checked.
OTHERS = ("bash", "git", "cd", "pip", "export", "srun", "sbatch", "tensorboard", "hf", "source")

# Options of pip, pytest, Slurm and the launchers that the text names.
OTHER_OPTIONS = {"--num_processes", "--config_file", "--index-url", "--signal", "--signals-to-handle"}


def commands_in(code: str) -> list[list[str]]:
    """The commands of a block as words; of `srun` and `sbatch` also what they start."""
    code = re.sub(r"\$\(\([^)]*\)\)|\$\([^)]*\)|\$\w+", "1", code.replace("\\\n", " "))
    code = re.sub(r"<[^>]*>", "PLACE", code)
    lines = [words for line in code.splitlines() if (words := shlex.split(line, comments=True))]
    lines = [part for words in lines for part in split_at(words, "&&")]
    started = [word for words in lines if words[0] in ("srun", "sbatch") for word in words]
    inner = [word for word in started if re.search(r"examples/|vidlankd ", word)]
    return [*lines, *(command for word in inner for command in commands_in(word))]


def split_at(words: list[str], mark: str) -> list[list[str]]:
    parts = [[]]
    for word in words:
        parts = [*parts, []] if word == mark else [*parts[:-1], [*parts[-1], word]]
    return parts


def check_command(monkeypatch, words: list[str]) -> None:
    from accelerate.commands.launch import launch_command_parser

    while "=" in words[0] and len(words) > 1:  # variables of the environment
        words = words[1:]
    for word in words:
        if re.match(r"(examples|accelerate_configs|benchmarks|tests|docs)/.*\.\w+$", word):
            assert (ROOT / word).exists(), f"there is no {word}"
    if words[:2] == ["accelerate", "launch"]:
        options = launch_command_parser().parse_args(words[2:])
        script = options.training_script
        if options.module:
            script = script.removeprefix("vidlankd_hf.").replace(".", "/") + ".py"
            assert script.startswith("examples/") and (ROOT / script).exists(), f"there is no {script}"
        words = ["python", script, *options.training_script_args]
    if words[0] == "vidlankd":
        from vidlankd_hf.cli import COMMANDS

        assert words[1] in COMMANDS, f"vidlankd has no command {words[1]!r}"
        words = ["python", f"examples/{COMMANDS[words[1]]}.py", *words[2:]]
    if words[0].startswith("examples/"):
        words = ["python", *words]
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        unknown = [word for word in words[1:] if "=" not in word and word not in targets]
        assert not unknown, f"make has no target {unknown}"
    elif words[0] == "python" and words[1].startswith("examples/"):
        options = words[2:]
        if {"--help", "--help_all"} & set(options):
            return
        try:
            parsed, parser = parse_command(monkeypatch, Path(words[1]).stem, options)
        except SystemExit as error:
            raise AssertionError(f"{shlex.join(words)}: see the error above") from error
        if isinstance(parsed, tuple):  # for later commands that name this run's settings
            parser.save_settings(parsed[0].output_dir)
    else:
        assert words[0] in ("python", *OTHERS), f"what is {words[0]!r}?"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_are_such_as_the_examples_parse(page, workplace, monkeypatch):
    for block in BLOCKS[name_of(page)]:
        named = re.match(r"# (\w+\.yaml)\n", block.code)
        if block.language == "yaml":
            assert yaml.safe_load(block.code)
            if named:
                (workplace / named[1]).write_text(block.code)
    blocks = [block.code for block in BLOCKS[name_of(page)] if block.language == "bash" and block.runs]
    for code in [*blocks, *INLINE.findall(FENCE.sub("", text_of(page)))]:
        for words in commands_in(code):
            check_command(monkeypatch, words)


@pytest.mark.parametrize(
    "code, message",
    [
        ("python examples/distill.py --lerning_rate 1", "see the error"),
        ("accelerate launch --config_file accelerate_configs/gpus.yaml examples/distill.py", "no accelerate_configs"),
        ("make demos", "no target"),
        ("python examples/distil.py", "there is no examples/distil.py"),
        ("pyhton examples/distill.py", "what is 'pyhton'"),
        ("vidlankd destill --seed 1", "no command 'destill'"),
        ("vidlankd distill --lerning_rate 1", "see the error"),
        ("accelerate launch -m vidlankd_hf.examples.distil", "there is no examples/distil.py"),
        ("sbatch --wrap 'python examples/distill.py --seed x'", "see the error"),
        ("sbatch --wrap 'vidlankd distill --seed x'", "see the error"),
    ],
)
def test_wrong_commands_are_noticed(workplace, monkeypatch, code, message):
    with pytest.raises(AssertionError, match=message):
        for words in commands_in(code):
            check_command(monkeypatch, words)


@pytest.mark.parametrize("path", sorted((ROOT / "examples" / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_commands_files_and_options_in_the_comments_of_a_recipe_exist(workplace, monkeypatch, path):
    lines = [line.removeprefix("#") for line in path.read_text().splitlines() if line.startswith("#")]
    found, text = commands_in("\n".join(line for line in lines if line.startswith("     "))), "\n".join(lines)
    assert [words[0] for words in found][-3:] == ["vidlankd", "accelerate", "accelerate"]
    for words in found:
        check_command(monkeypatch, words)
    files = re.findall(r"(?:docs|examples|accelerate_configs)/[\w/]+\.\w+", text)
    files += [f"examples/recipes/{name}" for name in re.findall(r"(?<![\w/])\w+\.yaml", text)]
    assert len(files) > 5 and not [name for name in files if not (ROOT / name).is_file()]
    options = set(re.findall(r"--\w+", text)) - OTHER_OPTIONS
    assert options <= set().union(*(options_of(monkeypatch, n) for n in ("prepare", "pretrain_teacher", "distill")))


def options_of(monkeypatch, name: str) -> set[str]:
    """All options of an example."""
    from vidlankd_hf.cli import CommandLine

    made = []

    def stop(parser, *args, **kwargs):
        made.append(parser)
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr("sys.argv", [f"examples/{name}.py"])
        patched.setattr(CommandLine, "parse", stop)
        with pytest.raises(SystemExit):
            example(name).main()
    return {option for action in made[0]._actions for option in action.option_strings}


def test_options_in_the_text_exist(monkeypatch):
    from vidlankd_hf.cli import COMMANDS

    benchmarks = "".join(path.read_text() for path in (ROOT / "benchmarks").rglob("*.py"))
    known = OTHER_OPTIONS.union(re.findall(r'"(--\w+)"', benchmarks))
    known |= set().union(*(options_of(monkeypatch, name) for name in COMMANDS.values()))
    named = set()
    for page in sorted({*PAGES} - {ROOT / "CHANGELOG.md"}):  # which names removed options
        text = text_of(page)
        codes = re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
        codes += re.findall(r"^.*python benchmarks/.*$", text.replace("\\\n", " "), re.M)
        named |= {(name_of(page), option) for code in codes for option in re.findall(r"(?<!\S)--[a-z][\w-]*", code)}
    assert len(named) > 60
    assert not [f"{page}: {option}" for page, option in sorted(named) if option not in known]


def test_the_page_of_commands_lists_all_of_them():
    from vidlankd_hf.cli import COMMANDS

    rows = re.findall(r"^\| `vidlankd ([\w-]+)` \|.*\| `(\w+)\.py` \|$", text_of(DOCS / "commands.md"), re.M)
    assert dict(rows) == COMMANDS
    named = {name for page in PAGES for name in re.findall(r"`vidlankd ([a-z][\w-]*)`", text_of(page))}
    assert named <= set(COMMANDS)

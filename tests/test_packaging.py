"""What the wheel needs: examples that hide no module, complete metadata, and extras that missing packages name."""

import ast
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import vidlankd_hf
from vidlankd_hf.cli import COMMANDS, main
from vidlankd_hf.reliability import run_dir
from vidlankd_hf.utils.examples import ACCELERATE_CONFIGS, EXAMPLES
from vidlankd_hf.utils.extras import requires_extra

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "__init__")


def test_no_example_hides_a_module():
    """A script's folder comes first on `sys.path`: `examples/inspect.py` would break `import torch`."""
    installed = {*sys.stdlib_module_names, *importlib.metadata.packages_distributions()}
    assert not installed & set(SCRIPTS)
    outside = [entry for entry in sys.path if Path(entry).resolve() != EXAMPLES.resolve()]
    for name in SCRIPTS:
        assert importlib.machinery.PathFinder.find_spec(name, outside) is None, f"examples/{name}.py hides a module"


def test_every_example_has_one_command_and_every_command_an_example():
    assert sorted(COMMANDS.values()) == SCRIPTS


def test_examples_and_launch_configurations_are_found():
    assert (EXAMPLES / "recipes" / "small.yaml").is_file() and (ACCELERATE_CONFIGS / "zero3.yaml").is_file()


def run_main(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["vidlankd", *words])
    main()


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_command_alone_lists_all_commands_with_a_line_each(monkeypatch, capsys, words):
    run_main(monkeypatch, *words)
    lines = capsys.readouterr().out.splitlines()
    listed = {line.split()[0]: line for line in lines if line.startswith("  ") and line.split()[0] in COMMANDS}
    assert list(listed) == list(COMMANDS)
    assert all(len(line.split()) > 3 and line.endswith(".") for line in listed.values())


def test_unknown_command_names_the_nearest(monkeypatch):
    with pytest.raises(SystemExit, match="no command 'destil'; did you mean distill?"):
        run_main(monkeypatch, "destil", "--seed", "1")


def test_every_public_name_can_be_imported_and_is_listed():
    names = {}
    exec("from vidlankd_hf import *", names)  # noqa: S102
    assert set(vidlankd_hf.__all__) <= set(names) and set(vidlankd_hf.__all__) <= set(dir(vidlankd_hf))
    with pytest.raises(AttributeError, match="no attribute 'VidLanKDTaecher'"):
        vidlankd_hf.VidLanKDTaecher  # noqa: B018


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_demo_installs_only_what_it_needs(tmp_path):
    def installs(target):
        words = ["make", "-n", target, f"VENV={tmp_path}", f"PYTHON={tmp_path}/bin/python"]
        clean = {name: value for name, value in os.environ.items() if "MAKE" not in name}  # of `make test`
        done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=clean)
        return re.findall(r'-e "(.+)"', done.stdout)

    assert installs("demo") == [".[world]"] and installs("test") == [".[dev]"]
    (tmp_path / ".installed-world").touch()
    assert installs("demo") == [] and installs("test") == [".[dev]"]
    (tmp_path / ".installed-world").unlink()
    (tmp_path / ".installed-dev").touch()
    assert installs("demo") == [] and installs("test") == []


def test_command_runs_its_example_under_its_own_name(monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        run_main(monkeypatch, "convert-howto100m", "--help")
    assert ended.value.code == 0 and "usage: vidlankd convert-howto100m [--option" in capsys.readouterr().out


def test_missing_optional_package_names_its_extra():
    with pytest.raises(ImportError, match=r'no_such_module is not installed.*pip install "vidlankd_hf\[world\]"'):
        with requires_extra("world"):
            import no_such_module  # noqa: F401


def describe(monkeypatch, **environment):
    """What setup.py hands to setuptools."""
    import setuptools

    given = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "setup.py")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return given


def test_release_has_links_that_work_outside_the_repository(monkeypatch):
    given = describe(monkeypatch, GITHUB_REPOSITORY="someone/vidlankd_hf", GITHUB_SERVER_URL="https://github.com")
    targets = re.findall(r"\]\(([^)\s]+)\)", given["long_description"])
    assert len(targets) > 5 and all(target.startswith(("https://", "#")) for target in targets)
    assert any("/raw/v" in target and target.endswith(".png") for target in targets)
    assert given["project_urls"]["Source"] == "https://github.com/someone/vidlankd_hf"


def test_lowest_constraints_are_the_lower_bounds(monkeypatch):
    given = describe(monkeypatch)
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    bounds = {}
    for requirement in [*given["install_requires"], *given["extras_require"]["test"]]:
        name, _, version = requirement.partition(",")[0].partition(">=")
        bounds[name] = version
    assert set(bounds) == set(pinned)
    for name, version in bounds.items():
        assert re.fullmatch(rf"{re.escape(version)}(\.0)*", pinned[name]), f"{name}: {pinned[name]} is not {version}"


def test_all_installs_every_extra_that_users_need(monkeypatch):
    extras = describe(monkeypatch)["extras_require"]
    for_users = [packages for name, packages in extras.items() if name not in ("test", "docs", "dev")]
    assert set(extras["all"]) == set().union(*for_users)


def code_lines(path: Path) -> int:
    """Lines that are not blank, comment or docstring."""
    tree = ast.parse(path.read_text())
    documented = [tree, *(node for node in ast.walk(tree) if isinstance(node, (ast.ClassDef, ast.FunctionDef)))]
    docstrings = [node.body[0] for node in documented if ast.get_docstring(node) is not None]
    skipped = {line for node in docstrings for line in range(node.lineno, node.end_lineno + 1)}
    silent = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    with open(path) as file:
        words = [token for token in tokenize.generate_tokens(file.readline) if token.type not in silent]
    return len({line for word in words for line in range(word.start[0], word.end[0] + 1)} - skipped)


@pytest.mark.parametrize("name", SCRIPTS)
def test_examples_are_short(name):
    assert code_lines(EXAMPLES / f"{name}.py") <= 80


def test_command_line_is_short():
    assert code_lines(ROOT / "vidlankd_hf" / "cli.py") <= 180


def test_run_records_the_command_that_the_user_typed(monkeypatch):
    monkeypatch.setattr(run_dir, "launcher_words", lambda: None)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setattr(sys, "argv", ["vidlankd distill", "--text", "my text.txt"])
    assert run_dir.command() == "vidlankd distill --text 'my text.txt'"

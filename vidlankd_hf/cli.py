"""The command line: `vidlankd COMMAND ...`, and the options, help and settings file that all examples share.

    parser = CommandLine(__doc__, (DistillationConfig, StudentArguments), GROUPS)
    args, own = parser.parse()
    parser.save_settings(args.output_dir)

The command line overrides the file given with `--config`, which overrides a recipe, which overrides the defaults.
"""

import argparse
import json
import runpy
import sys
from argparse import Namespace
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import yaml
from transformers import HfArgumentParser, TrainingArguments
from transformers.hf_argparser import string_to_bool

from .utils.addresses import is_address, public_address
from .utils.errors import let_main_speak, printable, run_example
from .utils.examples import COMMANDS, EXAMPLES, overview
from .utils.messages import nearest
from .utils.yaml_files import read_yaml

CONFIG_FILE = "config.yaml"
ABOUT = ("config", "help", "help_all")
NOT_SETTINGS = (*ABOUT, "local_rank")
UNSET = object()
STOCK = {field.name for field in fields(TrainingArguments)}
TYPES = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH", string_to_bool: "BOOL"}


def main() -> None:
    """Runs the console script `vidlankd COMMAND ...`; without a command, lists them."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(overview())
    elif words[0] not in COMMANDS:
        sys.exit(f"vidlankd: there is no command {words[0]!r}{nearest(words[0], COMMANDS)}; `vidlankd` lists them")
    else:
        sys.argv = [f"vidlankd {words[0]}", *words[1:]]
        run_example(lambda: runpy.run_path(str(EXAMPLES / f"{COMMANDS[words[0]]}.py"))["main"]())


class CommandLine(HfArgumentParser):
    """Parses an example's options from the command line and from a YAML file.

    Args:
        description: The script's docstring, at most 80 columns wide, which the help shows unchanged.
        dataclass_types: Dataclasses whose fields become options; `add_argument` adds more.
        groups: Heading -> names of options, in the order of the help. A dict of name -> text also replaces the
            options' help. Options in no group are shown in the first one, except those that a
            dataclass inherits from `transformers.TrainingArguments`, which only `--help_all` shows.
        defaults: Name -> text that the help shows as the default, for defaults that are not a fixed value.
    """

    def __init__(self, description: str, dataclass_types=(), groups: dict[str, Collection[str]] | None = None,
                 defaults: dict[str, str] | None = None):  # fmt: skip
        self.groups = groups or {"options": ()}
        name = Path(sys.argv[0]).name
        self.script = COMMANDS.get(name.removeprefix("vidlankd "), Path(name).stem)
        super().__init__(
            dataclass_types, description=description.strip(), usage="%(prog)s [--option value ...]", add_help=False,
            allow_abbrev=False, formatter_class=_Help,
        )  # fmt: skip
        # Without training arguments, names such as output_dir and seed are options of the script itself.
        self.stock = STOCK if any(issubclass(t, TrainingArguments) for t in self.dataclass_types) else set()
        for texts in self.groups.values():
            for name, text in texts.items() if isinstance(texts, dict) else ():
                self.options[name].help = text or self.options[name].help
        for name, text in (defaults or {}).items():
            self.options[name].help = f"{self.options[name].help.partition('; default:')[0]} (default: {text})"
        self.add_argument("--config", metavar="PATH", help="YAML file of these settings, or with one section per "
                          "script; the command line overrides it (default: none)")  # fmt: skip
        self.add_argument("--help", "-h", action="help", help="show this message and exit")
        if self.stock:
            self.add_argument("--help_all", action=_HelpAll, nargs=0, help="also show every option of the Trainer")

    @property
    def options(self) -> dict[str, argparse.Action]:
        """Every option by name; for the pair `--x` and `--no_x`, `--x`."""
        return {action.dest: action for action in (*self._actions, *reversed(self._actions))}

    def format_help(self, show_all: bool = False) -> str:
        options, formatter = self.options, self._get_formatter()
        rest = set(options) - {*NOT_SETTINGS, *(name for names in self.groups.values() for name in names)}
        sections = {heading: [*names] for heading, names in self.groups.items()}
        next(iter(sections.values())).extend(name for name in options if name in rest - self.stock)
        if show_all:
            sections["all other options of transformers.TrainingArguments"] = [
                n for n in options if n in rest & self.stock
            ]
        sections["settings and help"] = [name for name in ABOUT if name in options]
        formatter.add_usage(self.usage, [], [])
        formatter.add_text(self.description)
        for heading, names in sections.items():
            formatter.start_section(heading)
            formatter.add_arguments([options[name] for name in names])
            formatter.end_section()
        return formatter.format_help()

    def parse(self, recipe: Callable[[Namespace], dict[str, Any]] | None = None, section_needed: bool = True,
              keep_unknown: bool = False):  # fmt: skip
        """Parses `sys.argv` and the file of `--config`.

        Args:
            recipe: Called with the options given so far; returns values that replace defaults.
            section_needed: Whether a file with sections must have one for this script.
            keep_unknown: Whether unknown options go to `unknown` instead of being an error.

        Returns:
            The dataclasses in their order, or a `Namespace` if there are none.

        Raises:
            ValueError: The file does not hold settings of this script.
            SystemExit: An option is unknown, missing or has a wrong value.
        """
        words, options = sys.argv[1:], self.options
        finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        finder.add_argument("--config")
        self.config = finder.parse_known_args(words)[0].config
        known = set(options) - set(NOT_SETTINGS)
        given = read_config(self.config, self.script, known, section_needed) if self.config is not None else {}
        for name in given:
            options[name].required = False
        self.set_defaults(**{name: None for name, value in given.items() if value is None})
        # The Trainer prefers max_steps: that of a file or recipe must not override the epochs of the command line.
        if "num_train_epochs" in self._given_by(words):
            given.pop("max_steps", None)
        words = [*_as_words(given, options), *words]
        namespace, self.unknown = self.parse_known_args(words)
        if self.unknown and not keep_unknown:
            if not self.unknown[0].startswith("-"):
                self.error(f"{self.unknown[0]!r} belongs to no option: write --OPTION VALUE; --help lists the options")
            near = nearest(self.unknown[0].partition("=")[0].lstrip("-").replace("-", "_"), known, prefix="--")
            self.error(f"there is no option {self.unknown[0]}{near}")
        named, replaced = self._given_by(words) | set(given), recipe(namespace) if recipe is not None else {}
        if "num_train_epochs" in named:
            named.add("max_steps")
        self.set_defaults(**{name: value for name, value in replaced.items() if name not in named})
        namespace, _ = self.parse_known_args(words)
        self.named = named
        saved = (named | set(replaced)) & known - {"hub_token"}
        self.settings = {name: _readable(getattr(namespace, name)) for name in options if name in saved}
        if not self.dataclass_types:
            del namespace.config
            return namespace
        try:
            parsed = self.parse_args_into_dataclasses(words, return_remaining_strings=True, look_for_args_file=False)
        except (ValueError, ImportError) as error:  # including errors of the Trainer's own checks
            raise ValueError(str(error)) from error
        return parsed[: len([*self.dataclass_types])]

    def error(self, message: str) -> NoReturn:
        let_main_speak()
        super().error(printable(message))

    def _given_by(self, words: list[str]) -> set[str]:
        unset = Namespace(**dict.fromkeys(self.options, UNSET))
        return {name for name, value in vars(self.parse_known_args(words, unset)[0]).items() if value is not UNSET}

    def save_settings(self, folder: str | Path, sections: dict[str, Any] | None = None) -> None:
        """Writes the given settings and those of a recipe to `config.yaml`; `--config` with this file repeats the run.

        Addresses are written without user, password and query.

        Args:
            folder: Folder of the run; it is created if missing.
            sections: Sections of other scripts to write too; the settings then become a section as well.
        """
        settings = {name: _public(value) for name, value in self.settings.items()}
        content = {**sections, self.script: settings} if sections else settings
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        Path(folder).mkdir(parents=True, exist_ok=True)
        about = f"# The settings of this run of {self.script}.py. To repeat it, give this file with --config.\n"
        (Path(folder) / CONFIG_FILE).write_text(about + text)


def read_config(
    path: str | Path, section: str, known: Collection[str] | None = None, section_needed: bool = True
) -> dict[str, Any]:
    """Reads settings from a YAML file: all of it, or its `section` if it has sections.

    Args:
        path: The file.
        section: Name of a script.
        known: Allowed settings; `None` allows all.
        section_needed: Whether a file with sections must have this one.

    Raises:
        ValueError: The file or section is missing, is not a mapping, or has an unknown setting.
    """
    if not Path(path).is_file():
        raise ValueError(f"--config {path} is not a file: give a YAML file of settings, as in {EXAMPLES / 'recipes'}")
    content = read_yaml(path)
    if isinstance(content, dict) and set(content) & set(COMMANDS.values()):
        if section not in content and section_needed:
            raise ValueError(f"{path} has no section {section!r}, only {', '.join(content)}: add it")
        content = content.get(section, {})
    if content is None and Path(path).name == CONFIG_FILE:
        return {}  # a run with all settings at their defaults
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no settings: write lines such as `learning_rate: 2e-4`")
    unknown = [] if known is None else sorted(str(name) for name in content if name not in known)
    if unknown:
        near = nearest(unknown[0], known or ())
        raise ValueError(f"{path} has a setting {unknown[0]!r}, which {section}.py lacks (see its --help){near}")
    return content


def _as_words(given: dict[str, Any], options: dict[str, argparse.Action]) -> list[str]:
    """Turns settings of a file into command-line arguments, so that they are checked in the same way."""
    words = []
    for name, value in given.items():
        if options[name].nargs == 0:
            if not isinstance(value, bool):
                raise ValueError(f"the setting {name} is {value!r}: give true or false")
            words += [f"--{name}"] if value else []
        elif isinstance(value, list):
            words += [f"--{name}", *map(str, value)]
        elif value is not None:
            words.append(f"--{name}={json.dumps(value) if isinstance(value, (dict, bool)) else value}")
    return words


def _public(value: Any) -> Any:
    if isinstance(value, list):
        return [_public(item) for item in value]
    return public_address(value) if isinstance(value, str) and is_address(value) else value


def _readable(value: Any) -> Any:
    """Converts a setting to plain values that YAML writes readably."""
    if isinstance(value, str) and value.startswith("{"):
        with suppress(ValueError):
            return json.loads(value)
    return json.loads(json.dumps(value, default=str))


class _HelpAll(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        print(parser.format_help(show_all=True), end="")
        parser.exit()


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help of 80 columns that shows one name, the type and the default of each option."""

    def __init__(self, prog):
        super().__init__(prog, max_help_position=32, width=80)

    def _format_action_invocation(self, action):
        listed = "{" + ",".join(map(str, action.choices or ())) + "}"
        metavar = action.metavar or (listed if 2 < len(listed) <= 40 else TYPES.get(action.type, "TEXT"))
        metavar += " ..." if action.nargs in ("+", "*") else ""
        return action.option_strings[0] if action.nargs == 0 else f"{action.option_strings[0]} {metavar}"

    def _get_help_string(self, action):
        text = (action.help or "").rstrip(".")
        if action.required:
            return f"{text} (required)"
        return text if action.dest in ABOUT or "default:" in text.lower() else f"{text} (default: %(default)s)"

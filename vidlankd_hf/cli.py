"""The examples' command lines: a help of 80 columns, in groups and with defaults; settings from and into a file.

    parser = CommandLine(__doc__, (DistillationConfig, DataArguments), GROUPS)
    args, data_args = parser.parse()
    parser.save_settings(args.output_dir)

What is given on the command line goes over the file of `--config`, that over a recipe, that over an option's default.
"""

import argparse
import difflib
import enum
import json
import sys
import textwrap
from argparse import Namespace
from collections.abc import Callable, Collection
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser, TrainingArguments
from transformers.hf_argparser import string_to_bool

CONFIG_FILE = "config.yaml"
# The examples, each of which may have a section in a file of settings.
SECTIONS = (
    "make_world", "extract_features", "inspect_data", "pretrain_teacher", "vokenize", "distill", "probe", "finetune",
    "evaluate_all", "ablate", "demo", "convert_howto100m", "convert_original", "ground", "plot_run",
)  # fmt: skip
NOT_SETTINGS = ("help", "help_all", "config", "local_rank")
SECRETS = ("hub_token",)
# What the help of each training script shows of transformers.TrainingArguments, in fewer words.
TRAINING = {
    "num_train_epochs": "passes over the data; --max_steps goes over it",
    "max_steps": "optimizer steps; -1: as many as --num_train_epochs needs",
    "per_device_train_batch_size": "sequences of a process in a micro-batch",
    "gradient_accumulation_steps": "micro-batches of an optimizer step",
    "learning_rate": "peak learning rate of AdamW",
    "warmup_steps": "steps over which the learning rate rises; below 1: share of all steps",
    "weight_decay": "of AdamW; not of biases and norms",
    "bf16": "bfloat16 autocast; losses stay in float32",
    "gradient_checkpointing": "less memory for one more forward pass",
    "torch_compile": "compile the model",
    "dataloader_num_workers": "processes that make batches; 0: the main one does",
    "seed": "of weights, order, masks and dropout",
    "use_cpu": "stay on the CPU where there is a GPU",
}
OUTPUT = {
    "save_strategy": "when a checkpoint is written: steps, epoch or no",
    "save_steps": "steps between checkpoints; below 1: share of all steps",
    "save_total_limit": "checkpoints that are kept; default: all",
    "eval_strategy": "when the held-out data are scored beside the end: steps, epoch or no",
    "logging_steps": "steps between logs; below 1: share of all steps",
    "report_to": "loggers, such as tensorboard",
    "push_to_hub": "put the model on the Hub",
    "hub_model_id": "its name there; default: that of --output_dir",
}
STOCK = {field.name: field for field in fields(TrainingArguments)}
TYPES = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH", string_to_bool: "BOOL"}
LONGEST_CHOICES = 40  # characters of an option's choices that the help lists
_UNSET = object()


class CommandLine(HfArgumentParser):
    """An example's options.

    Args:
        description: The script's docstring; its indented lines are shown as they are.
        dataclass_types: Dataclasses whose fields are options; more may be added with `add_argument`.
        groups: Heading to names of options, in the order of the help. Options of ours that are in none stand in the
            first one; those of `transformers.TrainingArguments` are then shown by `--help_all` alone.
        defaults: Of options whose default is not a fixed value, what the help says of it; may hold `%(default)s`.
    """

    def __init__(self, description: str, dataclass_types=(), groups: dict[str, tuple[str, ...]] | None = None,
                 defaults: dict[str, str] | None = None):  # fmt: skip
        self.groups, self.defaults_in_words = groups or {"options": ()}, defaults or {}
        self.settings: dict[str, Any] = {}
        self.script = ""
        self.config: str | None = None
        self.unknown: list[str] = []
        super().__init__(
            dataclass_types, description=description, formatter_class=_Help, add_help=False, allow_abbrev=False
        )
        for name, words in {**TRAINING, **OUTPUT}.items():
            if name in self.options and name in STOCK and self.options[name].help == STOCK[name].metadata.get("help"):
                self.options[name].help = words
        self.add_argument("--config", metavar="PATH", help="YAML file of these settings, or with a section of them "
                          "for each script; the command line goes over it (default: none)")  # fmt: skip
        self.add_argument("--help", "-h", action="help", help="show this and exit")
        if self.dataclass_types:
            self.add_argument("--help_all", action=_HelpAll, nargs=0, help="also show every option of the Trainer")

    @property
    def options(self) -> dict[str, argparse.Action]:
        """Every option by its name; of `--x` and `--no_x`, `--x`."""
        options: dict[str, argparse.Action] = {}
        for action in self._actions:
            options.setdefault(action.dest, action)
        return options

    def format_usage(self) -> str:
        required = [f" --{name} {_metavar(option)}" for name, option in self.options.items() if option.required]
        usage = f"usage: {self.prog}{''.join(required)} [--option value ...]"
        return textwrap.fill(usage, 80, subsequent_indent="    ", break_on_hyphens=False) + "\n"

    def format_help(self, every: bool = False) -> str:
        options = self.options
        about = ["config", "help", *(["help_all"] if "help_all" in options else [])]
        grouped = {name for names in self.groups.values() for name in names}
        trainer = set(STOCK) if self.dataclass_types else set()
        others = [name for name in options if name not in {*grouped, *about}]
        formatter = self._get_formatter()
        formatter.add_text(self.description)
        first = next(iter(self.groups))
        for heading, names in self.groups.items():
            ours = [name for name in others if name not in trainer] if heading == first else []
            self._add_section(formatter, heading, [options[name] for name in [*names, *ours]])
        if every:
            rest = [options[name] for name in others if name in trainer and name not in NOT_SETTINGS]
            self._add_section(formatter, "all other options of transformers.TrainingArguments", rest)
        self._add_section(formatter, "settings and help", [options[name] for name in about])
        return f"{self.format_usage()}\n{formatter.format_help()}"

    def _get_formatter(self):
        formatter = super()._get_formatter()
        formatter.defaults_in_words = self.defaults_in_words
        return formatter

    @staticmethod
    def _add_section(formatter, heading: str, options: list[argparse.Action]) -> None:
        formatter.start_section(heading)
        formatter.add_arguments(options)
        formatter.end_section()

    def parse(
        self,
        recipe: Callable[[Namespace], dict[str, Any]] | None = None,
        section_needed: bool = True,
        keep_unknown: bool = False,
    ):
        """Parses `sys.argv` and the file of `--config`.

        Args:
            recipe: Called with what was given; returns values that take the place of defaults.
            section_needed: Whether a file with sections must have one of this script.
            keep_unknown: Leave words of the command line that are no options in `unknown`, instead of an error.

        Returns:
            The dataclasses in their order; where there are none, a `Namespace`.

        Raises:
            ValueError: The file is none of settings of this script.
            SystemExit: An option is unknown, missing or has a wrong value.
        """
        words, options = sys.argv[1:], self.options
        self.script = Path(sys.argv[0]).stem
        finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        finder.add_argument("--config")
        path = self.config = finder.parse_known_args(words)[0].config
        known = {name for name in options if name not in NOT_SETTINGS}
        given = {} if path is None else read_config(path, self.script, known, section_needed)
        for name, value in given.items():
            options[name].required = False
            if value is None:
                self.set_defaults(**{name: None})
        # On the command line max_steps would win over epochs; those of a file or a recipe must not.
        if "num_train_epochs" in self._named(words):
            given.pop("max_steps", None)
        words = [*_as_words(given, options), *words]
        own = {name: _default_of(options[name]) for name in known}
        (namespace, self.unknown), below = self.parse_known_args(words), {}
        if self.unknown and not keep_unknown:
            self.error(f"there is no option {self.unknown[0]}{_nearest(self.unknown[0].partition('=')[0], known)}")
        if recipe is not None:
            below = dict(recipe(namespace))
            settled = {*given, *(["max_steps"] if "num_train_epochs" in self._named(words) else [])}
            self.set_defaults(**{name: value for name, value in below.items() if name not in settled})
            namespace, _ = self.parse_known_args(words)
        self.settings = {
            name: _readable(getattr(namespace, name))
            for name in options
            if name in known - set(SECRETS)
            and (name in below or name in given or getattr(namespace, name) != own[name])
        }
        if not self.dataclass_types:
            del namespace.config
            return namespace
        return self.parse_args_into_dataclasses(words, look_for_args_file=False)[: len(self.dataclass_types)]

    def _named(self, words: list[str]) -> set[str]:
        """The options that a command line gives."""
        unset = Namespace(**dict.fromkeys(self.options, _UNSET))
        return {name for name, value in vars(self.parse_known_args(words, unset)[0]).items() if value is not _UNSET}

    def save_settings(self, folder: str | Path, sections: dict[str, Any] | None = None) -> None:
        """Writes `config.yaml`: every setting that is not at its default, for `--config` to repeat the run.

        Args:
            folder: Of the run; is made.
            sections: Of other scripts; the settings then are a section, too.
        """
        path = Path(folder) / CONFIG_FILE
        content = {**sections, self.script: self.settings} if sections else self.settings
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"# Every setting of {self.script}.py that was not at its default; --config takes this file.\n{text}"
        )


def also_of_the_world(recipe: dict[str, Any]) -> dict[str, str]:
    """For `CommandLine(defaults=...)`: the values of the grounded world's recipe."""
    shown = {name: json.dumps(value) if isinstance(value, bool) else value for name, value in recipe.items()}
    return {name: f"%(default)s; grounded world: {value}" for name, value in shown.items()}


def read_config(
    path: str | Path, section: str, known: Collection[str] | None = None, section_needed: bool = True
) -> dict[str, Any]:
    """Settings of a YAML file: all of it, or its `section` if it has sections.

    Raises:
        ValueError: No such file or section, no mapping, or a setting that is not `known` (if that is given).
    """
    if not Path(path).is_file():
        raise ValueError(
            f"--config {path} is no file: give a YAML file of settings, such as those in examples/recipes"
        )
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path} is no YAML file: {error}") from error
    if isinstance(content, dict) and set(content) & set(SECTIONS):
        if section not in content and not section_needed:
            return {}
        if section not in content:
            raise ValueError(f"{path} has no section {section!r}: it has {', '.join(content)}")
        content = content[section]
    if content is None and Path(path).name == CONFIG_FILE:
        return {}  # a run at its defaults
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no settings: write lines such as `learning_rate: 2e-4`")
    unknown = [] if known is None else sorted(str(name) for name in content if name not in known)
    if unknown:
        near = _nearest(unknown[0], known)
        raise ValueError(
            f"{path} has a setting {unknown[0]!r}, which {section}.py does not have{near}: see its --help"
        )
    return content


def _nearest(name: str, known: Collection[str]) -> str:
    """The known name most like one that is not, as the end of a message."""
    near = difflib.get_close_matches(name.lstrip("-").replace("-", "_"), list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""


def _as_words(given: dict[str, Any], options: dict[str, argparse.Action]) -> list[str]:
    """Settings of a file as command-line arguments, so that they are checked as those are."""
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


def _default_of(option: argparse.Action) -> Any:
    """An option's default as it is where nothing is given."""
    is_word = isinstance(option.default, str) and option.type is not None
    return option.type(option.default) if is_word else option.default


def _readable(value: Any) -> Any:
    """A setting as YAML writes it best."""
    if isinstance(value, (list, tuple)):
        return [_readable(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, str) and value.startswith("{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value if value is None or isinstance(value, (bool, int, float, str, dict)) else str(value)


class _HelpAll(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        print(parser.format_help(every=True), end="")
        parser.exit()


class _Help(argparse.HelpFormatter):
    """80 columns; one name an option; its type; its default."""

    defaults_in_words: dict[str, str] = {}

    def __init__(self, prog):
        super().__init__(prog, max_help_position=32, width=80)

    def _fill_text(self, text, width, indent):
        paragraphs = text.strip().split("\n\n")
        return "\n\n".join(
            paragraph if paragraph.startswith(" ") else textwrap.fill(" ".join(paragraph.split()), width)
            for paragraph in paragraphs
        )

    def _format_action_invocation(self, action):
        return " ".join([action.option_strings[0], *([] if action.nargs == 0 else [_metavar(action)])])

    def _get_help_string(self, action):
        text = (action.help or "").rstrip(".")
        text = text[:1].upper() + text[1:]
        if action.required or action.dest in ("help", "help_all") or "default:" in text.lower():
            return text
        words = self.defaults_in_words.get(action.dest, "%(default)s")
        value = _readable(action.default)
        shown = json.dumps(value) if isinstance(value, (dict, bool)) else value
        if isinstance(value, list):
            shown = " ".join(map(str, value)) or "none"
        if isinstance(value, float):
            shown = f"{value:g}"
        if value is None:
            shown = "false" if action.type is string_to_bool else "none"
        shown = str(shown).replace("%", "%%")
        return f"{text} (default: {words.replace('%(default)s', shown)})"


def _metavar(action: argparse.Action) -> str:
    metavar = action.metavar or TYPES.get(action.type, "TEXT")
    if action.metavar is None and action.choices is not None:
        listed = "{" + ",".join(map(str, action.choices)) + "}"
        metavar = listed if len(listed) <= LONGEST_CHOICES else metavar
    return f"{metavar} ..." if action.nargs in ("+", "*") else metavar

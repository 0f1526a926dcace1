"""Evaluates models on downstream tasks, fine-tuned over seeds and as they are, and writes the report.

    python examples/evaluate_all.py --tasks rte mrpc --seeds 3 \\
        --models outputs/students/text_only outputs/student

The first model is what the others are tested against. Every run is a cell below --output_dir: interrupted, the same
command goes on where it was.
"""

import json
import re
import shlex
from pathlib import Path

from transformers import AutoTokenizer
from transformers.utils import logging

import vidlankd_hf.experiments.world  # noqa: F401  (adds its task to TASKS)
from vidlankd_hf.cli import CommandLine
from vidlankd_hf.evaluation import TASKS
from vidlankd_hf.evaluation.card import update_card, zero_shot_results
from vidlankd_hf.evaluation.checkpoints import fingerprint, load_for_scoring
from vidlankd_hf.evaluation.reading import find_file
from vidlankd_hf.evaluation.report import summarize, write_report
from vidlankd_hf.evaluation.task import Task
from vidlankd_hf.evaluation.zero_shot import evaluate_zero_shot
from vidlankd_hf.experiments.grid import flags
from vidlankd_hf.reliability.run_dir import run_script
from vidlankd_hf.utils.io import atomic_write

EXAMPLES = Path(__file__).parent


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--models", nargs="+", required=True, help="folders or Hub ids, with tokenizers")
    parser.add_argument("--names", nargs="+", help="of the models in the report; default: the last part of each")
    parser.add_argument(
        "--tasks", nargs="+", choices=list(TASKS), required=True, metavar="TASK", help=f"of {', '.join(TASKS)}"
    )
    parser.add_argument("--seeds", type=int, default=3, help="of every fine-tuned task")
    parser.add_argument("--data", help="folder of the tasks' official folders; default: the Hub")
    parser.add_argument("--learning_rates", type=float, nargs="+", help="to try; default: each task's recipe")
    parser.add_argument("--train_rows", nargs="+", default=[], metavar="TASK=ROWS", help="train on so many rows only")
    parser.add_argument(
        "--output_dir", type=Path, default=Path("outputs/downstream"), help="where results are written"
    )
    parser.add_argument("--launcher", help="starts each fine-tuning, such as 'accelerate launch'; default: python")
    parser.add_argument("--no_card", action="store_true", help="leave the models' README.md as they are")
    parser.add_argument(
        "--finetune_options",
        type=json.loads,
        metavar="JSON",
        help="options of finetune.py; those that are not this script's are passed on to it, too; default: none",
    )
    args = parser.parse(keep_unknown=True)
    passed_on = {**(args.finetune_options or {}), **options_of(parser)}
    more = flags(passed_on)
    if any(name == "push_to_hub" or name.startswith("hub_") for name in passed_on):
        parser.error("nothing is pushed from here: push a model with finetune.py, and log in with hf auth login")
    if passed_on:
        parser.settings["finetune_options"] = passed_on
    names = args.names or [Path(model).name for model in args.models]
    if len(names) != len(args.models) or len(set(names)) != len(names):
        parser.error(f"{len(args.models)} models need as many different names, not {names}: give --names")
    zero_shot = [task for task in args.tasks if not isinstance(TASKS[task], Task)]
    if zero_shot and args.data is None:
        parser.error(f"{', '.join(zero_shot)} need --data, the folder that holds visual_commonsense")
    if not all(re.fullmatch(r"\w+=[1-9]\d*", entry) for entry in args.train_rows):
        parser.error(f"--train_rows {' '.join(args.train_rows)}: write TASK=ROWS, such as sst2=10000")
    rows = dict(entry.split("=") for entry in args.train_rows)
    if "learning_rate" in passed_on or set(rows) - set(args.tasks):
        parser.error("give --learning_rates instead of --learning_rate, and --train_rows of --tasks only")
    for task in args.tasks if args.data else ():  # what is missing is said before hours are spent
        needed = TASKS[task].files if task in zero_shot else ("train", *TASKS[task].evaluate_on)
        for split in needed:
            find_file(TASKS[task], args.data, split)
    launcher = shlex.split(args.launcher) if args.launcher else None
    parser.save_settings(args.output_dir)

    logging.set_verbosity_error()
    tuned, scored = {}, {}
    for name, model in zip(names, args.models):
        cards = [] if args.no_card or not Path(model).is_dir() else [model]
        for task in args.tasks:
            folder = args.output_dir / name / task
            if task in zero_shot:
                scored.setdefault(task, {})[name] = score(model, task, args.data, folder / "result.json", cards)
                continue
            options = {"model": model, "task": task, "output_dir": folder, "seeds": args.seeds}
            options |= {"data": args.data} if args.data else {}
            options |= {"learning_rates": args.learning_rates} if args.learning_rates else {}
            options |= {"train_rows": rows[task]} if task in rows else {}
            options |= {} if cards else {"no_card": "true"}
            made, arguments = folder / "arguments.json", json.dumps([*flags(options), *more, fingerprint(model)])
            if not made.exists() or made.read_text() != arguments:
                options |= {"report_to": "none"}
                run_script(EXAMPLES / "finetune.py", *flags(options), *more, launcher=launcher)
                atomic_write(made, arguments)
            rates = [f"lr-{rate:g}" for rate in args.learning_rates or [TASKS[task].recipe["learning_rate"]]]
            cells = [folder / rate / f"seed-{seed}" for rate in rates for seed in range(1, args.seeds + 1)]
            runs = [json.loads((cell / "result.json").read_text()) for cell in cells]
            tuned.setdefault(task, {})[name] = runs
    print(write_report(summarize(tuned, scored, names), args.output_dir).read_text())


def options_of(parser: CommandLine) -> dict[str, list[str]]:
    """The options that a command line has beside the parser's own, each with its words."""
    options: dict[str, list[str]] = {}
    for word in parser.unknown:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            name = name.replace("-", "_")
            options[name] = [value] if value else []
        elif not options:
            parser.error(f"{word!r} belongs to no option")
        else:
            options[name].append(word)
    return options


def score(model: str, task: str, data: str, path: Path, cards: list[str]) -> dict:
    """Scores a model as it is, unless `path` holds the result."""
    made_from = {"model": model, "weights": fingerprint(model), "data": data}
    compared = ("weights" if made_from["weights"] else "model", "data")  # a folder may move
    if not path.exists():
        encoder, masked_lm = load_for_scoring(model)
        result = evaluate_zero_shot(TASKS[task], encoder, AutoTokenizer.from_pretrained(model), data, masked_lm)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps({**made_from, **result}, indent=1) + "\n")
    result = json.loads(path.read_text())
    held, asked = ({name: made[name] for name in compared} for made in (result, made_from))
    if held != asked:
        raise SystemExit(f"{path} was made from {held}, not {asked}: remove it, or give --output_dir")
    for folder in cards:
        update_card(folder, zero_shot_results(TASKS[task], task, result))
    return result


if __name__ == "__main__":
    main()

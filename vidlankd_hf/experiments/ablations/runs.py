"""The runs of one seed: the commands that train its teachers and students, and the stored result of each student."""

import json
from dataclasses import fields
from pathlib import Path
from threading import Lock
from typing import Any

from ...cli import read_config
from ...data.text_blocks import load_text
from ...data.vocabulary import load_tokenizer
from ...models.configuration import SIZES, VidLanKDTeacherConfig
from ...models.load_teacher import load_teacher
from ...models.objectives import objectives_recipe
from ...training.build import build_student
from ...training.script_arguments import StudentArguments
from ...utils.examples import flags
from ...utils.io import atomic_write
from ...utils.json_files import read_json
from ..flops import step_flops
from ..grid import ExperimentRun, affecting_results, held_out_language, probe, read_result
from ..script_arguments import VokenizationArguments
from ..world.recipe import CLIP_RECIPE, LANGUAGE_MODEL, STUDENT_RECIPE, TEACHER_RECIPE
from .tables import ROWS, TEACHERS, Row
from .tokenizer import train_byte_level_tokenizer

_COUNTING = Lock()  # loading models and counting FLOPs change settings of PyTorch for all threads while they run
DATA = {"pretrain_teacher": ("features", "captions", "tokenizer"), "distill": ("text",)}


def has_own_data(path: str) -> bool:
    """Whether a settings file names data; if it does not, its sections change the recipes of the grounded world."""
    return any(
        read_config(path, section, section_needed=False).get(name) for section in DATA for name in DATA[section]
    )


def read_recipes(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads the teacher's and the student's settings from the user's YAML file.

    Raises:
        ValueError: The file names data, but not all of them.
    """
    recipes, own_data = [], has_own_data(path)
    for section, data in DATA.items():
        recipe = read_config(path, section, section_needed=own_data)
        missing = [name for name in data if own_data and not recipe.get(name)]
        if missing:
            raise ValueError(f"section {section} of {path} lacks {', '.join(missing)}: add the paths of your data")
        recipes.append({name: value for name, value in recipe.items() if name not in ("teacher", "seed")})
    if own_data:
        return recipes[0], recipes[1]
    return {**TEACHER_RECIPE, **recipes[0]}, {**STUDENT_RECIPE, **recipes[1]}


def _is_clip(teacher: str) -> bool:
    return TEACHERS[teacher].get("architecture") == "clip"


class SeedRuns:
    """The runs of one seed.

    Each student has one JSON file with its settings, scores and cost. The tables need nothing else, so these files
    can be committed and the models removed.

    Args:
        seed: Seed of world and training.
        folder: Folder for the seed's models.
        results: Folder for the seed's JSON files.
        config: YAML file for [`read_recipes`]; `None` for the grounded world as it is.
    """

    def __init__(self, seed: int, folder: Path, results: Path, config: str | None = None):
        self.seed, self.folder, self.results, self.config = seed, folder, results, config
        self.world = folder / "world" if config is None or not has_own_data(config) else None
        self.world_recipe = {} if config is None else read_config(config, "make_world", section_needed=False)
        self.teacher_recipe, self.student_recipe = (
            (TEACHER_RECIPE, STUDENT_RECIPE) if config is None else read_recipes(config)
        )

    def world_run(self) -> ExperimentRun:
        """Returns the run that builds the seed's grounded world."""
        options = {**self.world_recipe, "output_dir": self.world, "seed": self.seed}
        return ExperimentRun(self.world, "make_world", flags(options), {**self.world_recipe, "seed": self.seed})

    def teacher_run(self, name: str) -> ExperimentRun:
        """Returns the run that trains a teacher of `TEACHERS`."""
        folder, design = self.folder / name, TEACHERS[name]
        if _is_clip(name):
            options = {"world": self.world, "output_dir": folder, "seed": self.seed}
            arguments = flags(options) + ["--shuffle_videos"] * design.get("shuffle_videos", False)
            settings = {**CLIP_RECIPE, "shuffle_videos": False, **design, "seed": self.seed}
            return ExperimentRun(folder, "vidlankd_hf.experiments.ablations.clip", arguments, settings)
        settings = {**self.teacher_recipe, **design, "seed": self.seed}
        return ExperimentRun(folder, "pretrain_teacher", self._arguments("pretrain_teacher", folder, design), settings)

    def vokens_run(self, name: str) -> ExperimentRun:
        """Returns the run that makes the vokens for a row of `ROWS`; its vokenizer must exist."""
        row = ROWS[name]
        folder = self.folder / f"{row.teacher}_{row.num_vokens}"
        options = {"vokenizer": self.folder / row.teacher, "output_dir": folder, "num_vokens": row.num_vokens}
        options["seed"] = self.seed
        if self.world is not None:
            options["world"] = self.world
        else:
            both = {**self.teacher_recipe, **TEACHERS[row.teacher], **self.student_recipe}
            names = {field.name for field in fields(VokenizationArguments)}
            options = {**{name: value for name, value in both.items() if name in names}, **options}
        return ExperimentRun(folder, "vokenize", flags(options), None)

    def starts_from(self, name: str) -> Path | None:
        """Folder of the language model that the student of a row of `ROWS` continues; `None` if it starts otherwise.

        On the grounded world, every model type has one for each tokenizer. On your own data, students start as your
        settings say.
        """
        row = ROWS[name]
        if self.world is None or row.continues_teacher or self.student_recipe.get("student") not in SIZES:
            return None
        kind = row.options.get("student_model_type")
        parts = [*([kind] if kind else []), *(["bpe"] if row.byte_level else []), "language_model"]
        return self.folder / "_".join(parts)

    def language_model_run(self, name: str) -> ExperimentRun:
        """Returns the run that trains the language model of a row of `ROWS`; the default teacher must exist."""
        row = ROWS[name]
        options = {
            **LANGUAGE_MODEL,
            "teacher": str(self.folder / "teacher"),
            "max_steps": self._language_model_steps(),
        }
        if "student_model_type" in row.options:
            options["student_model_type"] = row.options["student_model_type"]
        if row.byte_level:
            options["tokenizer"] = str(self.byte_level_tokenizer)
        folder, settings = self.starts_from(name), {**self.student_recipe, **options, "seed": self.seed}
        return ExperimentRun(
            folder, "distill", self._arguments("distill", folder, {**options, "no_probe": True}), settings
        )

    def _language_model_steps(self) -> int:
        """As many more than a student has as in the recipe."""
        return round(int(self.student_recipe["max_steps"]) * LANGUAGE_MODEL["max_steps"] / STUDENT_RECIPE["max_steps"])

    def student_run(self, name: str) -> ExperimentRun:
        """Returns the run that trains the student of a row of `ROWS`; its teacher, and any vokens, must exist."""
        options = self._student_options(name)
        names = {name: options[name] for name in ("teacher", "student", "vokens", "tokenizer") if name in options}
        files = StudentArguments(**{"student": self.student_recipe.get("student", "small"), **names})
        settings = {**self.student_recipe, **options, "seed": self.seed, "fingerprints": files.fingerprints()}
        settings["objectives"] = self._objectives(name)
        return self._student_run(name, options, settings)

    def _student_run(self, name: str, options: dict, settings: dict) -> ExperimentRun:
        folder = self.folder / "students" / name
        return ExperimentRun(
            folder, "distill", self._arguments("distill", folder, {**options, "no_probe": True}), settings
        )

    def _student_options(self, name: str) -> dict[str, Any]:
        row = ROWS[name]
        teacher = self.folder / row.teacher
        options = {"objectives": row.objectives, "teacher": str(teacher), **self._length(name)}
        language_model = self.starts_from(name)
        if row.continues_teacher:
            options["student"] = str(teacher)
            if "student_model_type" in self.student_recipe:
                options["student_model_type"] = self._text_config(teacher).model_type
        if row.num_vokens:
            options["vokens"] = str(self.vokens_run(name).folder)
        options |= row.options
        if language_model is not None:
            options["student"] = str(language_model)
            options.pop("student_model_type", None)
        elif (tokenizer := self._student_tokenizer(row)) is not None:
            options["tokenizer"] = str(tokenizer)
        return options

    def _text_config(self, teacher: Path):
        return VidLanKDTeacherConfig.from_pretrained(teacher, trust_remote_code=False).text_config

    def _student_tokenizer(self, row: Row) -> Path | None:
        """Folder of the tokenizer of a row's student; `None` if it is the teacher's."""
        if row.byte_level:
            return self.byte_level_tokenizer
        return self.world / "tokenizer" if self.world is not None and _is_clip(row.teacher) else None

    @property
    def byte_level_tokenizer(self) -> Path:
        """Folder of the byte-level tokenizer, for students that do not use the teacher's."""
        return self.folder / "byte_level_tokenizer"

    def make_byte_level_tokenizer(self) -> None:
        """Trains the byte-level tokenizer on the students' text, with 256 tokens (the bytes) more than the teacher's.

        Few of the bytes occur in the text. With as many tokens in all, it would split words that the teacher reads as
        one token.
        """
        source = self.student_recipe["text"] if self.world is None else str(self.world / "text" / "train.txt")
        teacher = self.teacher_recipe["tokenizer"] if self.world is None else str(self.world / "tokenizer")
        texts = (row["text"] for row in load_text(source, streaming=True))
        train_byte_level_tokenizer(texts, 256 + len(load_tokenizer(teacher)), self.byte_level_tokenizer)

    def result(self, name: str) -> dict | None:
        """Reads the stored result of a student; `None` if there is none.

        Raises:
            ValueError: The result was made with other settings.
        """
        return read_result(self.results / f"{name}.json", self.identity(name))

    def keep(self, name: str, log: Path | None = None, gpu: str | None = None) -> dict:
        """Writes the result file of a trained student; `log` and `gpu` are for the probes."""
        folder = self.folder / "students" / name
        state = read_json(folder / "trainer_state.json", dict, "remove its folder to train again")
        run = read_json(folder / "run.json", dict, "remove its folder to train again")
        last = {key: value for entry in state["log_history"] for key, value in entry.items()}
        sequences = run["settings"]["sequences_per_step"]
        result = {
            **self.identity(name),
            "steps": state["global_step"],
            "sequences_per_step": sequences,
            "tflop": state["global_step"] * sequences * self._sequence_flops(name) / 1e12,
            "seconds": last["train_runtime"],
            **held_out_language(folder),
            "command": run["command"],
        }
        if self.world is not None:
            result["probe"] = probe(folder, self.world, log, gpu)
            result["teacher_probe"] = probe(self.folder / ROWS[name].teacher, self.world, log, gpu)
        self.results.mkdir(parents=True, exist_ok=True)
        atomic_write(self.results / f"{name}.json", json.dumps(result, indent=1) + "\n")
        return result

    def identity(self, name: str) -> dict:
        """Settings that a stored result must share with this run."""
        row = ROWS[name]
        return {
            "seed": self.seed,
            "objectives": objectives_recipe(row.objectives),
            "teacher": TEACHERS[row.teacher],
            "num_vokens": row.num_vokens,
            "continues_teacher": row.continues_teacher,
            "equal_compute": row.equal_compute,
            **({"steps_factor": row.steps_factor} if row.steps_factor > 1 else {}),
            **({"byte_level": True} if row.byte_level else {}),
            **({"options": row.options} if row.options else {}),
            **({"language_model_steps": self._language_model_steps()} if self.starts_from(name) else {}),
            "teacher_recipe": affecting_results(CLIP_RECIPE if _is_clip(row.teacher) else self.teacher_recipe),
            "student_recipe": affecting_results(self.student_recipe),
        }

    def _arguments(self, section: str, folder: Path, options: dict) -> list[str]:
        given = {} if self.world is None else {"world": self.world}
        if self.config is not None and (self.world is None or read_config(self.config, section, section_needed=False)):
            given["config"] = self.config
        return flags({**given, "output_dir": folder, "seed": self.seed, "report_to": "none", **options})

    def _objectives(self, name: str) -> dict[str, dict]:
        objectives = objectives_recipe(ROWS[name].objectives)
        if ROWS[name].num_vokens:
            objectives["voken"]["num_vokens"] = ROWS[name].num_vokens
        return objectives

    def _length(self, name: str) -> dict:
        """Returns the option that replaces the recipe's number of steps or epochs, if the student has another one.

        It trains for a multiple of the steps, has equal compute, or makes up for the steps of the language model that
        it does not start from.
        """
        row, steps = ROWS[name], int(self.student_recipe.get("max_steps", -1))
        if row.continues_teacher and self.starts_from("text_only") is not None:
            return {"max_steps": steps + self._language_model_steps()}
        more = row.steps_factor
        if row.equal_compute:
            more *= self._sequence_flops("crd") / self._sequence_flops(name)
        if more == 1:
            return {}
        if steps > 0:
            return {"max_steps": round(steps * more)}
        return {"num_train_epochs": float(self.student_recipe.get("num_train_epochs", 3.0)) * more}

    def _sequence_flops(self, name: str) -> float:
        """FLOPs of a student's training step per sequence."""
        recipe = self.student_recipe
        sequences = int(recipe.get("per_device_train_batch_size", 8))
        length, masked = int(recipe.get("block_tokens", 126)) + 2, float(recipe.get("mlm_probability", 0.15))
        with _COUNTING:
            student, teacher = self._models(name)
            if ROWS[name].objectives:
                student.add_objectives(self._objectives(name), teacher.config.hidden_size)
            return step_flops(student, teacher, sequences, length, masked) / sequences

    def _models(self, name: str) -> tuple:
        """The student of a row before training, without objectives, and its teacher."""
        row, recipe, folder = ROWS[name], self.student_recipe, self.folder / ROWS[name].teacher
        teacher, own_tokenizer = load_teacher(folder), self._student_tokenizer(row)
        new = recipe.get("student", "small"), recipe.get("student_model_type")
        start, model_type = (str(folder), None) if row.continues_teacher else new
        tokenizer = None if own_tokenizer is None else load_tokenizer(str(own_tokenizer))
        student = build_student(start, str(folder), row.options.get("student_model_type", model_type), tokenizer)
        student.remove_objectives()
        return student, teacher

"""The runs of one seed: which commands make its teachers and students, and what is kept of each student."""

import json
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer

from ..cells import Cell, flags, probe
from ..compute import step_flops
from ..configuration import SIZES, VidLanKDTeacherConfig, bert_config
from ..data.shards import write_atomically
from ..student import VidLanKDStudent, objectives_recipe
from ..teacher import VidLanKDTeacher
from ..world.recipe import STUDENT_RECIPE, TEACHER_RECIPE
from .tables import STUDENTS, TEACHERS

DATA = ("features", "captions", "tokenizer", "text", "cache_dir", "num_proc", "report_to")


class SeedRuns:
    """The runs of one seed, of world and training.

    What is kept of a student is a JSON file: how it was made, what it scored, what it cost. A table needs no more, so
    these files can be committed and the models removed.

    Args:
        seed: Of world and training.
        folder: Of the seed's models.
        results: Of the seed's JSON files.
        config: YAML file with the sections `pretrain_teacher` and `distill`, or `None` for the grounded world.
        sections: What it holds.
    """

    def __init__(
        self, seed: int, folder: Path, results: Path, config: str | None = None, sections: dict | None = None
    ):
        self.seed, self.folder, self.results, self.config = seed, folder, results, config
        self.world = folder / "world" if config is None else None
        self.teacher_recipe = sections["pretrain_teacher"] if sections else TEACHER_RECIPE
        self.student_recipe = sections["distill"] if sections else STUDENT_RECIPE

    def world_cell(self) -> Cell:
        arguments = ["--output_dir", str(self.world), "--seed", str(self.seed)]
        return Cell(self.world, "make_world.py", arguments, {"seed": self.seed})

    def teacher_cell(self, name: str) -> Cell:
        folder, design = self.folder / name, TEACHERS[name]
        settings = {**self.teacher_recipe, **design, "seed": self.seed}
        return Cell(folder, "pretrain_teacher.py", self._arguments(folder, design), settings)

    def vokens_cell(self, name: str) -> Cell:
        student = STUDENTS[name]
        folder = self.folder / f"{student.teacher}_{student.num_vokens}"
        options = {"vokenizer": self.folder / student.teacher, "output_dir": folder, "num_vokens": student.num_vokens}
        if self.world is not None:
            options["world"] = self.world
        else:
            both = {**self.teacher_recipe, **self.student_recipe}
            names = ("features", "captions", "text", "cache_dir", "max_length", "max_video_length", "block_tokens")
            options |= {option: both[option] for option in names if option in both}
        return Cell(folder, "vokenize.py", flags(options), {"num_vokens": student.num_vokens})

    def student_cell(self, name: str) -> Cell:
        """Needs its teacher, and its vokens if it learns them."""
        student, folder = STUDENTS[name], self.folder / "students" / name
        teacher = self.folder / student.teacher
        options = {"objectives": student.objectives, "teacher": str(teacher), **self._steps(name)}
        if student.continues_teacher:
            options["student"] = str(teacher)
        if student.num_vokens:
            options["vokens"] = str(self.vokens_cell(name).folder)
        settings = {**self.student_recipe, **options, "seed": self.seed}
        settings["objectives"] = objectives_recipe(student.objectives)
        if student.num_vokens:
            settings["objectives"]["voken"]["num_vokens"] = student.num_vokens
        arguments = self._arguments(folder, options) + (["--no_probe"] if self.world is not None else [])
        return Cell(folder, "distill.py", arguments, settings)

    def result(self, name: str) -> dict | None:
        """What is kept of a student; `None` if it was not run.

        Raises:
            ValueError: It was run with other settings.
        """
        path = self.results / f"{name}.json"
        if not path.exists():
            return None
        result, asked = json.loads(path.read_text()), self._identity(name)
        for key, value in json.loads(json.dumps(asked)).items():
            if result[key] != value:
                raise ValueError(
                    f"{path} has {key} {result[key]}, but {value} is asked for: remove it, or give --results"
                )
        return result

    def keep(self, name: str, log: Path | None = None) -> dict:
        """Writes what is kept of a student that was run."""
        cell, student = self.student_cell(name), STUDENTS[name]
        teacher = self.folder / student.teacher
        state = json.loads((cell.folder / "trainer_state.json").read_text())
        run = json.loads((cell.folder / "run.json").read_text())
        last = {key: value for entry in state["log_history"] for key, value in entry.items()}
        result = {
            **self._identity(name),
            "steps": state["global_step"],
            "tflop": state["global_step"] * self._step_flops(name) / 1e12,
            "seconds": last["train_runtime"],
            "mlm_loss": last["eval_mlm_loss"],
            "command": run["command"],
        }
        if self.world is not None:
            result["probe"] = probe(cell.folder, self.world, log)
            result["teacher_probe"] = probe(teacher, self.world, log)
        self.results.mkdir(parents=True, exist_ok=True)
        write_atomically(self.results / f"{name}.json", json.dumps(result, indent=1) + "\n")
        return result

    def _identity(self, name: str) -> dict:
        student = STUDENTS[name]
        return {
            "seed": self.seed,
            "objectives": objectives_recipe(student.objectives),
            "teacher": TEACHERS[student.teacher],
            "num_vokens": student.num_vokens,
            "continues_teacher": student.continues_teacher,
            "equal_compute": student.equal_compute,
            "teacher_recipe": {k: v for k, v in self.teacher_recipe.items() if k not in DATA},
            "student_recipe": {k: v for k, v in self.student_recipe.items() if k not in DATA},
        }

    def _arguments(self, folder: Path, options: dict) -> list[str]:
        data = ["--world", str(self.world)] if self.config is None else ["--config", self.config]
        return [*data, "--output_dir", str(folder), "--seed", str(self.seed), "--report_to", "none", *flags(options)]

    def _steps(self, name: str) -> dict:
        """Steps of a student, where they are not the recipe's."""
        if not STUDENTS[name].equal_compute:
            return {}
        unit = "max_steps" if "max_steps" in self.student_recipe else "num_train_epochs"
        more = self.student_recipe[unit] * self._step_flops("crd") / self._step_flops(name)
        return {unit: round(more) if unit == "max_steps" else more}

    def _step_flops(self, name: str) -> int:
        """Of one process and micro-batch; weights do not matter."""
        chosen, recipe = STUDENTS[name], self.student_recipe
        teacher = VidLanKDTeacher(VidLanKDTeacherConfig.from_pretrained(self.folder / chosen.teacher))
        tokenizer = AutoTokenizer.from_pretrained(self.folder / chosen.teacher)
        size = recipe.get("student", "small")
        if chosen.continues_teacher:
            student = VidLanKDStudent(teacher.config.text_config)
        elif size in SIZES:
            student = VidLanKDStudent(bert_config(size, tokenizer))
        else:
            student = VidLanKDStudent(AutoConfig.from_pretrained(size))
        if chosen.objectives:
            objectives = objectives_recipe(chosen.objectives)
            if chosen.num_vokens:
                objectives["voken"]["num_vokens"] = chosen.num_vokens
            student.add_objectives(objectives, teacher.config.hidden_size)
        sequences, length = recipe.get("per_device_train_batch_size", 8), recipe.get("block_tokens", 126) + 2
        return step_flops(student, teacher, sequences, length, recipe.get("mlm_probability", 0.15))

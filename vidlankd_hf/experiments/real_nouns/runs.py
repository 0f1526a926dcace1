"""The runs of one seed: the commands that train its language model, teachers and students, and the stored results."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from ...data.features import FeatureStore
from ...models.load_teacher import load_teacher
from ...models.objectives import objectives_recipe
from ...utils.examples import flags
from ...utils.io import atomic_write
from ...utils.json_files import read_json, read_text
from ..grid import ExperimentRun, affecting_results, held_out_language, read_result
from .scores import score_model, score_states
from .tables import BASE, BASE_RECIPE, LENGTH, ROWS, STUDENT_RECIPE, TEACHER_RECIPE, TEACHERS

PICTURES, MINILM = "pictures", "minilm"  # rows without training: the features, and MiniLM as it is
CLIP_OPTIONS = ("patches", "sizes")
REMEDY = "remove it to run it again"


class SeedRuns:
    """The runs of one seed of language model, teachers and students; the data are those of all seeds.

    Each row has one JSON file with its settings and scores. The tables need nothing else, so these files can be
    committed and the models removed.

    Args:
        seed: Seed of the training.
        data: Folder of [`build`].
        folder: Folder for the seed's models.
        results: Folder for the seed's JSON files.
        benchmarks: Folder of the benchmarks.
        steps: Steps of every run, for a quick trial; `None` means those of the recipes.
    """

    def __init__(self, seed: int, data: Path, folder: Path, results: Path, benchmarks: Path, steps: int | None = None):
        self.seed, self.data, self.folder, self.results, self.benchmarks = seed, data, folder, results, benchmarks
        self.base = data / BASE
        short: dict[str, Any] = {} if steps is None else {"max_steps": steps, "warmup_steps": 0, "held_out_videos": 4}
        self.base_recipe = {**BASE_RECIPE, **{n: v for n, v in short.items() if n != "held_out_videos"}}
        self.teacher_recipe = {**TEACHER_RECIPE, **short}
        self.student_recipe = {**STUDENT_RECIPE, **{n: v for n, v in short.items() if n != "held_out_videos"}}

    def base_run(self) -> ExperimentRun:
        """Returns the run that gives MiniLM a masked-language-model head, once for all seeds."""
        options = {"student": self.data / MINILM, "teacher": self.data / MINILM, "objectives": {}}
        return self._distillation(self.base, self.base_recipe, options)

    def teacher_run(self, name: str) -> ExperimentRun:
        """Returns the run that trains a teacher of `TEACHERS`; the base must exist."""
        folder, settings = self.folder / name, {**self.teacher_recipe, **TEACHERS[name], "seed": self.seed}
        options = {
            **settings, "features": self.data / "features", "captions": self.data / "clips" / "captions.jsonl",
            "tokenizer": self.base, "text_model": self.base, "output_dir": folder,
            "cache_dir": self.data / "cache",
        }  # fmt: skip
        return ExperimentRun(folder, "pretrain_teacher", flags(options), affecting_results(settings))

    def student_run(self, name: str) -> ExperimentRun:
        """Returns the run that trains the student of a row of `ROWS`; base and teacher must exist."""
        row = ROWS[name]
        teacher = self.folder / row.teacher if row.objectives else self.base
        options = {"student": self.base, "teacher": teacher, "objectives": row.objectives}
        return self._distillation(self.folder / "students" / name, {**self.student_recipe, "seed": self.seed}, options)

    def _distillation(self, folder: Path, recipe: dict, options: dict) -> ExperimentRun:
        settings = {**recipe, "block_tokens": LENGTH - 2}
        arguments = {**settings, **options, "text": self.data / "text" / "text.txt", "output_dir": folder,
                     "cache_dir": self.data / "cache"}  # fmt: skip
        checked = {**affecting_results(settings), "objectives": objectives_recipe(options["objectives"])}
        return ExperimentRun(folder, "distill", flags(arguments), checked)

    def identity(self, name: str) -> dict:
        """Settings that a stored result must share with this run."""
        clips = self._pictures()
        base = affecting_results(self.base_recipe)
        shown = {"clips": len(clips), "clip_options": self._clip_options()}
        common = {"row": name, "seed": self.seed, **shown, "base_recipe": base}
        if name in (PICTURES, MINILM):
            streams = {"streams": self.teacher_recipe["streams"]} if name == PICTURES else {}
            return {"row": name, **shown, **streams}
        teacher = name if name in TEACHERS else ROWS[name].teacher
        taught: dict[str, Any] = {}
        if name in TEACHERS or ROWS[name].objectives:
            taught = {"teacher": TEACHERS[teacher], "teacher_recipe": affecting_results(self.teacher_recipe)}
        if name in TEACHERS:
            return {**common, **taught}
        objectives = objectives_recipe(ROWS[name].objectives)
        return {**common, **taught, "objectives": objectives, "student_recipe": affecting_results(self.student_recipe)}

    def result(self, name: str) -> dict | None:
        """Reads the stored result of a row; `None` if there is none.

        Raises:
            ValueError: The result was made with other settings.
        """
        return read_result(self.results / f"{name}.json", self.identity(name))

    def keep(self, name: str) -> dict:
        """Scores the model of a row and writes its result file."""
        nouns = self.shown_nouns()
        trained: dict[str, Any] = {}
        if name == PICTURES:
            scores = score_states(self.picture_vectors(), self.benchmarks, set(nouns))
        elif name == MINILM:
            model = AutoModel.from_pretrained(self.data / MINILM, trust_remote_code=False).eval()
            tokenizer = AutoTokenizer.from_pretrained(self.data / MINILM, trust_remote_code=False)
            scores = score_model(model, tokenizer, self.benchmarks, nouns, masked=False)
        else:
            folder = self.folder / name if name in TEACHERS else self.folder / "students" / name
            trained = _training_of(folder)
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            if name in TEACHERS:
                scores = score_model(load_teacher(folder).eval(), tokenizer, self.benchmarks, nouns, masked=False)
            else:
                trained |= held_out_language(folder)
                student = AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=False).eval()
                scores = score_model(student, tokenizer, self.benchmarks, nouns)
        result = {**self.identity(name), **trained, **scores}
        self.results.mkdir(parents=True, exist_ok=True)
        atomic_write(self.results / f"{name}.json", json.dumps(result) + "\n")
        return result

    def _pictures(self) -> list[dict]:
        """The video and the noun of each clip."""
        path = self.data / "clips" / "pictures.jsonl"
        try:
            return [json.loads(line) for line in read_text(path).splitlines()]
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is damaged ({error}): remove {self.data} to make it again") from error

    def _clip_options(self) -> list[str] | None:
        """The options that changed what the clips show; `None` if there are none."""
        world = read_json(self.data / "world.json", dict, f"remove {self.data} to make it again")
        return [name for name in CLIP_OPTIONS if world.get(name)] or None

    def shown_nouns(self) -> list[str]:
        """The nouns of the clips, sorted."""
        return sorted({shown["noun"] for shown in self._pictures()})

    def picture_vectors(self) -> dict[str, np.ndarray]:
        """The mean feature of each noun's clips, as the teacher sees them."""
        store, of_noun = FeatureStore(self.data / "features", self.teacher_recipe["streams"]), {}
        for shown in self._pictures():
            features = store.read(shown["video"])[0].float().numpy()
            of_noun.setdefault(shown["noun"], []).append(features.mean(0))
        return {noun: np.mean(features, 0) for noun, features in of_noun.items()}


def _training_of(folder: Path) -> dict[str, Any]:
    """Steps, seconds, command and held-out scores of a finished run."""
    state = read_json(folder / "trainer_state.json", dict, REMEDY)
    last = {key: value for entry in state["log_history"] for key, value in entry.items()}
    command = read_json(folder / "run.json", dict, REMEDY)["command"]
    held_out = {name: last[name] for name in sorted(last) if "r@" in name}
    return {"steps": state["global_step"], "seconds": last["train_runtime"], "command": command, **held_out}

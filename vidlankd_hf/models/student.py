"""The student: a BERT, RoBERTa or ModernBERT that has distillation heads and objectives during training."""

import copy
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BertForMaskedLM, ModernBertForMaskedLM, PreTrainedConfig, PreTrainedModel, RobertaForMaskedLM
from transformers.utils import ModelOutput, cached_file

from .attention import key_mask
from .heads import DistillationHead, VokenHead, masked_logits, mlm_loss, unit_states
from .loading import gathered_parameters
from .losses import OBJECTIVES
from .objectives import NEEDED, objectives_recipe, own_losses, read_recipe
from .segments import pool
from .teacher import check_path

DISTILLATION_FOLDER, HEADS_FILE, RECIPE_FILE = "distillation", "heads.safetensors", "recipe.json"


@dataclass
class VidLanKDStudentOutput(ModelOutput):
    """Output of a student.

    Args:
        loss: MLM loss plus the weighted sum of the objectives.
        losses: The unweighted loss components by name. [`DistillationStudent.loss_terms`] says what each is a mean
            over.
        last_hidden_state: Token states `[B, L, H]`, before any head.
        correct: `[B, M]`, whether the most likely token is the masked one; only in eval mode.
    """

    loss: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    last_hidden_state: Tensor | None = None
    correct: Tensor | None = None


class DistillationStudent:
    """Mix-in that turns a masked language model into a student. It precedes the model's class, `plain_class`.

    Each objective on token states has its own distillation head. The names of the model's own weights stay the same,
    so every `AutoModel...` class loads a student's checkpoint; [`export`] returns the model without heads. Called
    without `masked_positions`, the student behaves like the plain model.
    """

    plain_class: type[PreTrainedModel]

    def __init__(self, config: PreTrainedConfig, objectives: dict | None = None):
        super().__init__(config)  # type: ignore[call-arg]
        self.objectives, self.distillation_heads = nn.ModuleDict(), nn.ModuleDict()
        recipe = getattr(config, "distillation", None)
        if recipe:
            self._build(recipe, own_losses(objectives or {}))

    def add_objectives(self, objectives: dict, teacher_hidden_size: int | None = None) -> None:
        """Adds objectives with newly initialized distillation heads.

        Args:
            objectives: Maps the name of each objective to a weight (`{"nst": 100.0}`), to a dict with weight and
                options (`{"crd": {"weight": 1.0, "temperature": 0.1}}`), to weight and instance
                (`{"crd": (1.0, CRDLoss(temperature=0.1))}`) or to an instance of your own class
                (`{"mine": MyLoss()}`, `{"mine": {"loss": MyLoss(), "weight": 2.0}}`). The option `"head": False`
                compares the student's own states, without a distillation head.
            teacher_hidden_size: Width Dt of the teacher's token states; required by objectives on token states.

        Raises:
            ValueError: The student already has objectives, an objective is unknown, a weight or option is invalid, or
                an objective without a head compares states of different widths.
        """
        if self.objectives:
            raise ValueError(
                f"student has objectives already ({', '.join(self.objectives)}): call remove_objectives() first"
            )
        recipe = {"objectives": objectives_recipe(objectives), "teacher_hidden_size": teacher_hidden_size}
        try:
            self._build(recipe, own_losses(objectives))
        except Exception:
            self.remove_objectives()
            raise
        for head in self.distillation_heads.values():
            head.apply(self._initialize_weights)
        self.distillation_heads.to(self.device, self.dtype)
        self.objectives.to(self.device)
        self.config.distillation = recipe

    @classmethod
    def from_teacher(cls, teacher) -> "DistillationStudent":
        """Creates a student from the text encoder and MLM head of a [`VidLanKDTeacher`] of the same model type."""
        student = cls(copy.deepcopy(teacher.config.text_config))
        with gathered_parameters(teacher.text_model):
            student.load_state_dict(teacher.text_model.state_dict())
        return student

    def remove_objectives(self) -> None:
        """Removes the objectives and their heads."""
        self.objectives, self.distillation_heads = nn.ModuleDict(), nn.ModuleDict()
        self.config.__dict__.pop("distillation", None)

    def _build(self, recipe: dict, own: dict[str, nn.Module]) -> None:
        """Creates objectives and heads from a recipe and, by name, the instances of the user's own classes."""
        missing = {name: o["class"] for name, o in recipe["objectives"].items() if "class" in o and name not in own}
        if missing:
            given = ", ".join(f"{name!r}: {path.rpartition('.')[2]}()" for name, path in missing.items())
            raise ValueError(
                f"this student was trained with objectives of your own ({', '.join(missing.values())}), which a "
                f"checkpoint does not hold: load it with from_pretrained(..., objectives={{{given}}}), or load the "
                "plain model with AutoModelForMaskedLM"
            )
        widths, known = (self.config.hidden_size, recipe["teacher_hidden_size"]), {**OBJECTIVES, **own}
        hidden = [name for name in recipe["objectives"] if "hidden" in known[name].needs]
        if hidden and widths[1] is None:
            raise ValueError(f"the objectives {', '.join(hidden)} compare token states: give teacher_hidden_size")
        norm_eps = getattr(self.config, "layer_norm_eps", None) or self.config.norm_eps  # ModernBERT's name
        for name, options in recipe["objectives"].items():
            options = dict(options)
            head, _ = options.pop("head", True), options.pop("weight")
            objective = self.objectives[name] = own[name] if "class" in options else OBJECTIVES[name](**options)
            if "vokens" in objective.needs:
                self.distillation_heads[name] = VokenHead(widths[0], objective.num_vokens, norm_eps)
            if "hidden" not in objective.needs:
                continue
            if head:
                self.distillation_heads[name] = DistillationHead(*widths, norm_eps)
            elif getattr(objective, "same_width", True) and widths[0] != widths[1]:
                raise ValueError(
                    f"objective {name!r} compares states of equal width, but the student's have {widths[0]} features "
                    f"and the teacher's {widths[1]}: remove 'head': false"
                )

    @property
    def teacher_needs(self) -> set[str]:
        """What the teacher must compute: `"hidden"` (token states), `"logits"`, both or nothing."""
        return self.needs & {"hidden", "logits"}

    @property
    def needs(self) -> set[str]:
        """What the objectives compare: `"hidden"`, `"logits"`, `"vokens"`."""
        return set().union(*(objective.needs for objective in self.objectives.values()))

    @property
    def loss_terms(self) -> dict[str, tuple[float, str]]:
        """Maps the name of each loss component to its weight and what it is a mean over."""
        terms = {"mlm": (1.0, "masked_tokens")}
        for name, objective in self.objectives.items():
            terms[name] = (self.config.distillation["objectives"][name]["weight"], objective.mean_over)
        return terms

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        masked_positions: Tensor | None = None,
        masked_labels: Tensor | None = None,
        teacher_states: Tensor | None = None,
        teacher_logits: Tensor | None = None,
        other_teacher_states: tuple[Tensor, Tensor] | None = None,
        voken_ids: Tensor | None = None,
        segments: Tensor | None = None,
        segment_mask: Tensor | None = None,
        **kwargs,
    ):
        """Computes the losses of a batch. Without `masked_positions`, returns the output of the plain model.

        Args:
            input_ids: `[B, L]`, masked.
            attention_mask: `[B, L]`, 1 for real tokens including special tokens. Default: all tokens are real.
            masked_positions: `[B, M]` indices into L at which the MLM head runs; any index in unused slots.
            masked_labels: `[B, M]` token ids at the masked positions, -100 in unused slots.
            teacher_states: `[B, L, Dt]` raw states of the teacher for the same tokens; with `segments`, `[B, S, Dt]`
                pooled ones.
            teacher_logits: `[B, M, V]` logits of the teacher's MLM head at `masked_positions`.
            other_teacher_states: Raw states `[N, L, Dt]` and attention mask `[N, L]` from the batches of other
                processes, as further negatives; with `segments`, `[N, S, Dt]` and `[N, S]`.
            voken_ids: `[B, L]`, -100 for tokens without a voken.
            segments: `[B, L]`, the segment of each token, -1 for none, for a teacher with another tokenizer. The
                objectives on token states then compare means over segments.
            segment_mask: `[B, S]`, 1 for real segments.

        Raises:
            ValueError: An input that an objective needs is missing.
        """
        if masked_positions is None:
            return super().forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        given = {"hidden": teacher_states, "logits": teacher_logits, "vokens": voken_ids}
        for need in self.needs:
            if given[need] is None:
                raise ValueError(f"the objectives {', '.join(self.objectives)} need {NEEDED[need]}")
        if (segments is None) != (segment_mask is None):
            raise ValueError("only one of segments [B, L] and segment_mask [B, S] is given: give both, or neither")
        mask = key_mask(attention_mask, self.config)
        states = self.base_model(input_ids, attention_mask=mask, **kwargs).last_hidden_state
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        logits = masked_logits(self, states, masked_positions)
        losses = {"mlm": mlm_loss(logits, masked_labels)}
        compared_states, compared_mask = states, attention_mask
        if "hidden" in self.teacher_needs:
            if segments is not None:
                compared_states, compared_mask = pool(states, segments, segment_mask.shape[1]), segment_mask
            teacher_states = unit_states(teacher_states.detach())
            if other_teacher_states is not None:
                other_teacher_states = unit_states(other_teacher_states[0]), other_teacher_states[1]
        for name, objective in self.objectives.items():
            if "hidden" in objective.needs:
                head = self.distillation_heads[name] if name in self.distillation_heads else unit_states
                compared = [head(compared_states), teacher_states, compared_mask]
                if getattr(objective, "contrastive", False):
                    compared.append(other_teacher_states)
            elif "vokens" in objective.needs:
                compared = [self.distillation_heads[name](states), voken_ids]
            else:
                compared = [logits, teacher_logits.detach(), masked_labels != -100]
            with torch.autocast(states.device.type, enabled=False):
                losses[name] = objective(*compared)
        loss = sum(self.loss_terms[name][0] * value for name, value in losses.items())
        correct = None if self.training else logits.argmax(-1) == masked_labels
        return VidLanKDStudentOutput(loss=loss, losses=losses, last_hidden_state=states, correct=correct)

    def export(self, state_dict: dict[str, Tensor] | None = None) -> PreTrainedModel:
        """Returns a copy of the student as a plain model of class `plain_class`, without heads and objectives.

        Args:
            state_dict: Weights to export instead of the student's own, such as a consolidated ZeRO state dict.
        """
        state_dict = self.state_dict() if state_dict is None else state_dict
        config = copy.deepcopy(self.config)
        config.__dict__.pop("distillation", None)
        config.architectures = [self.plain_class.__name__]
        with torch.random.fork_rng(devices=[]):  # exporting during training must not change the training
            plain = self.plain_class(config)
        weights = {k: v for k, v in state_dict.items() if not k.startswith(("distillation_heads.", "objectives."))}
        plain.load_state_dict(weights)
        return plain

    def save_distillation(self, output_dir: str | Path, state_dict: dict[str, Tensor] | None = None) -> None:
        """Writes heads and objectives for [`from_pretrained`], if there are any.

        Args:
            output_dir: Folder of the student. The files are written to its subfolder `distillation/`.
            state_dict: As in [`export`].
        """
        if not self.objectives:
            return
        state_dict = self.state_dict() if state_dict is None else state_dict
        heads = {
            name.removeprefix("distillation_heads."): tensor.contiguous()
            for name, tensor in state_dict.items()
            if name.startswith(("distillation_heads.", "objectives."))  # `objectives.`: only your own classes
        }
        folder = Path(output_dir) / DISTILLATION_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        save_file(heads, folder / HEADS_FILE, metadata={"format": "pt"})
        (folder / RECIPE_FILE).write_text(json.dumps(self.config.distillation, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, objectives: dict | None = None, **kwargs):
        """Loads a student.

        Args:
            pretrained_model_name_or_path: Hub id or folder of a training checkpoint, of an exported student (with its
                heads, if there is a folder `distillation/`) or of any plain checkpoint of this model type.
            objectives: Name to instance, for a student trained with objectives of your own class.
            args, kwargs: Passed to `PreTrainedModel.from_pretrained`. The default dtype is float32.

        Raises:
            ValueError: The folder does not exist, the checkpoint has another model type, the weights of its heads are
                missing, or the instances of its user-defined objectives are not given.
        """
        path, subfolder = pretrained_model_name_or_path, kwargs.get("subfolder") or ""
        if not subfolder:
            check_path(path, "the student")
        kwargs.setdefault("dtype", torch.float32)  # for training, even if the checkpoint is in half precision
        hub = {key: kwargs[key] for key in ("revision", "token", "cache_dir", "local_files_only") if key in kwargs}
        config, _ = cls.config_class.get_config_dict(path, subfolder=subfolder, **hub)
        model_type = config.get("model_type", cls.config_class.model_type)
        if model_type != cls.config_class.model_type:
            raise ValueError(
                f"{path} is a {model_type} checkpoint, but {cls.__name__} loads "
                f"{cls.config_class.model_type}: use {student_class(model_type).__name__}.from_pretrained"
            )
        if objectives and "distillation" in config:  # a checkpoint, whose heads are part of the model
            kwargs["objectives"] = objectives
        student = super().from_pretrained(path, *args, **kwargs)
        model = student[0] if isinstance(student, tuple) else student
        if not model.objectives:
            hub["subfolder"] = str(PurePosixPath(subfolder, DISTILLATION_FOLDER))
            quiet = ("_raise_exceptions_for_missing_entries", "_raise_exceptions_for_connection_errors")
            hub |= dict.fromkeys(quiet, False)
            recipe_file, heads_file = (cached_file(path, name, **hub) for name in (RECIPE_FILE, HEADS_FILE))
            if recipe_file and not heads_file:
                raise ValueError(
                    f"{path} has {DISTILLATION_FOLDER}/{RECIPE_FILE} but no {HEADS_FILE} with the weights of the "
                    f"heads: restore it, or remove {DISTILLATION_FOLDER}/"
                )
            if recipe_file:
                recipe = read_recipe(Path(recipe_file))
                own = {name: {"loss": loss} for name, loss in own_losses(objectives or {}).items()}
                with_instances = {name: {**o, **own.get(name, {})} for name, o in recipe["objectives"].items()}
                model.add_objectives(with_instances, recipe["teacher_hidden_size"])
                heads = load_file(heads_file)
                learned = {name: heads.pop(name) for name in list(heads) if name.startswith("objectives.")}
                model.distillation_heads.load_state_dict(heads)
                model.objectives.load_state_dict({n.removeprefix("objectives."): t for n, t in learned.items()})
        return student


class VidLanKDStudent(DistillationStudent, BertForMaskedLM):
    """A BERT student.

    Example:

        student = VidLanKDStudent(bert_config("small", tokenizer))
        student.add_objectives({"nst": 1000.0, "crd": 1.0}, teacher_hidden_size=768)
    """

    plain_class = BertForMaskedLM


class VidLanKDRobertaStudent(DistillationStudent, RobertaForMaskedLM):
    """A RoBERTa student."""

    plain_class = RobertaForMaskedLM


class VidLanKDModernBertStudent(DistillationStudent, ModernBertForMaskedLM):
    """A ModernBERT student."""

    plain_class = ModernBertForMaskedLM


STUDENTS = {"bert": VidLanKDStudent, "roberta": VidLanKDRobertaStudent, "modernbert": VidLanKDModernBertStudent}


def student_class(model_type: str) -> type[DistillationStudent]:
    """Returns the student class for a model type.

    Args:
        model_type: `"bert"`, `"roberta"` or `"modernbert"`.

    Raises:
        ValueError: Unknown `model_type`.
    """
    if model_type not in STUDENTS:
        raise ValueError(f"there is no student of model type {model_type!r}: choose one of {', '.join(STUDENTS)}")
    return STUDENTS[model_type]

"""Training settings for the grounded world, chosen on the world of seed 0, which no report uses."""

# Tokens per text. The same for teacher and student: the teacher's position embeddings beyond it are not trained.
LENGTH = 32

WORLD_SEED = 1  # seed of the default world

_TRAINING = {
    "seed": WORLD_SEED,
    "per_device_eval_batch_size": 32,
    "warmup_steps": 50,
    "save_steps": 500,
    "save_total_limit": 1,
    "logging_steps": 50,
}
TEACHER_RECIPE = {
    **_TRAINING,
    "per_device_train_batch_size": 32,
    "text_model": "tiny",
    "max_length": LENGTH,
    "fixed_windows": True,
    "max_steps": 1500,
    "learning_rate": 5e-4,
}
STUDENT_RECIPE = {
    **_TRAINING,
    "per_device_train_batch_size": 16,
    "student": "tiny",
    "block_tokens": LENGTH - 2,
    "max_steps": 2700,
    "learning_rate": 1e-3,
    "teacher_input": "clean",
}
# The language model from which all students of the demo and of the ablations start: it has read the same text, without
# a teacher. Given are the settings in which it differs from them.
LANGUAGE_MODEL = {"student": "tiny", "objectives": {}, "max_steps": 3600}
# A small CLIP, which has one frame per caption and its own tokenizer.
CLIP_RECIPE = {
    "vocab_size": 720,
    "max_length": LENGTH,
    "num_pretrain_scenes": 3000,
    "pretrain_steps": 800,
    "max_steps": 600,
    "per_device_train_batch_size": 48,
    "learning_rate": 1e-3,
    "weight_decay": 0.1,
    "warmup_steps": 50,
}
OBJECTIVES = {
    "text_only": {},
    "nst": {"nst": 3000.0},
    "crd": {"crd": 1.5},
}
MORE_OBJECTIVES = {
    "infonce": {"infonce": 1.0},
    "nst+crd": {"nst": 3000.0, "crd": 1.5},
    "regression": {"regression": {"weight": 1.0, "head": False}},
    "nst_tokens": {"nst": {"weight": 3.0, "axis": "tokens", "head": False}},
}
# The paper's own settings; its teacher is trained with the hinge loss and reads the student's masked tokens.
PAPER = {"objectives": {"nst": 1.0, "crd": 1.0}, "teacher_input": "masked"}


def in_help(recipe: dict) -> dict[str, str]:
    """Returns `defaults` for `CommandLine` that show the recipe's values next to the ordinary defaults."""
    # instead of None
    ordinary = {"save_total_limit": "all", "teacher_input": "masked, but clean if its tokenizer is not the student's"}
    return {name: f"{ordinary.get(name, '%(default)s')}; grounded world: {value}" for name, value in recipe.items()}

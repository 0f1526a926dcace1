"""How teacher and students are trained on the grounded world: chosen on world seed 100, which no report shows."""

TEACHER_RECIPE = {
    "text_model": "tiny",
    "max_steps": 800,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 32,
    "learning_rate": 1e-3,
    "warmup_steps": 50,
    "max_length": 64,
    "save_steps": 200,
    "save_total_limit": 1,
    "logging_steps": 50,
}
STUDENT_RECIPE = {
    "student": "tiny",
    "max_steps": 800,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 16,
    "learning_rate": 1e-3,
    "warmup_steps": 50,
    "save_steps": 200,
    "save_total_limit": 1,
    "logging_steps": 50,
}
OBJECTIVES = {
    "text_only": {},
    "nst": {"nst": 1000.0},
    "crd": {"crd": 1.0},
    "infonce": {"infonce": 1.0},
    "nst+crd": {"nst": 1000.0, "crd": 1.0},
}

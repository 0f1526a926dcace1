"""Pushes a finished model to the Hub; if that fails, the error says which command to run instead."""

import shlex
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled
from transformers import TrainingArguments

from ..reliability.ranks import raise_if_any_rank_failed

# Names of the files that are pushed: card, weights, configuration, tokenizer, heads, and a teacher's code. Settings,
# checkpoints and all other files stay in the folder.
_CODE = sorted(path.name for path in (Path(__file__).parents[1] / "models").glob("*.py"))
PUSHED = (
    "README.md losses.png model.safetensors model-*-of-*.safetensors model.safetensors.index.json config.json "
    "generation_config.json tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json vocab.txt "
    "vocab.json merges.txt spiece.model sentencepiece.bpe.model distillation/recipe.json "
    "distillation/heads.safetensors"
).split() + _CODE


class PushError(RuntimeError):
    """A model could not be pushed; the message holds the command to run instead."""


def make_repository(args: TrainingArguments, name: str, token: str | None = None, private: bool | None = None) -> str:
    """Creates the repository that a run will push to and returns its full id. All processes must call it.

    If the network or the server fails, it prints a message and returns `name`; [`push`] tries again after training.

    Args:
        args: Arguments of the run.
        name: `user/name`, or a name in the user's own namespace.
        token: Hub token; default: that of `hf auth login` or `HF_TOKEN`.
        private: Whether a new repository is private; default: the account's setting.

    Raises:
        RuntimeError: On every process, if pushing cannot work later either.
    """
    repo_id, error = name, None
    if args.process_index == 0:
        try:
            if token is not None and token != token.strip():
                raise ValueError("the token has white space around it: remove the white space")
            api = HfApi(token=token)
            repo_id = api.create_repo(name, private=private, exist_ok=True).repo_id
            api.auth_check(repo_id, write=True)  # an existing repository may be read-only
        except Exception as caught:
            if is_transient(caught):
                print(f"The Hub failed ({reason(caught)}): the push will be tried again after training.", flush=True)
            else:
                error = PushError(reason(caught))
    raise_if_any_rank_failed(f"--push_to_hub cannot work for {name}", error)
    return repo_id


def push(
    folder: str | Path,
    repo_id: str,
    commit_message: str,
    token: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
) -> CommitInfo:
    """Uploads the files of a finished model (see `PUSHED`); creates the repository if it is new.

    Args:
        folder: Folder with weights, configuration, tokenizer and card.
        repo_id: `user/name`, or a name in the user's own namespace.
        commit_message: Message of the commit.
        token: Hub token; default: that of `hf auth login` or `HF_TOKEN`.
        private: Whether a new repository is private; default: the account's setting.
        revision: Branch, created if it is new; default: main.

    Raises:
        PushError: The upload failed; the folder is unchanged.
    """
    try:
        api = HfApi(token=token)
        repo = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        return api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message=commit_message, revision=revision, allow_patterns=PUSHED
        )
    except Exception as error:  # training is over: whatever failed, the user must learn where the model is
        raise PushError(
            f"{folder} was not pushed to {repo_id}: {reason(error)}. Nothing is lost: the folder is complete. "
            f"Once the problem is fixed, run:\n\n    {upload_command(folder, repo_id, private, revision)}\n"
        ) from error


def upload_command(folder: str | Path, repo_id: str, private: bool | None = None, revision: str | None = None) -> str:
    """The shell command that does the same as [`push`]."""
    words = ["hf", "upload", repo_id, str(folder), "."]
    words += [word for pattern in PUSHED if any(Path(folder).glob(pattern)) for word in ("--include", pattern)]
    words += [] if private is None else ["--private" if private else "--no-private"]
    words += [] if revision is None else ["--revision", revision]
    return shlex.join(words)


def reason(error: Exception) -> str:
    """Describes an error of the Hub client in one line, with the remedy if permission is missing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kind, status = type(error).__name__, _status(error)
    said = f"{kind}{f' {status}' if status else ''}: {lines[0] if lines else 'no details'}"
    if status in (401, 403) or isinstance(error, LocalTokenNotFoundError):
        return f"{said} (log in with `hf auth login`, or set HF_TOKEN to a token with write access)"
    return said


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed later: the network or the server failed, not the request."""
    status = _status(error)
    if status is not None:
        return status >= 500 or status in (408, 429)
    return not isinstance(error, (ValueError, LocalTokenNotFoundError, OfflineModeIsEnabled))


def _status(error: Exception) -> int | None:
    return error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else None

"""Publishing a finished model on the Hub: what is pushed, and what to run again where that failed."""

import shlex
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled
from transformers import TrainingArguments

from ..reliability.ranks import raise_if_any_rank_failed

# What a run keeps beside its model: checkpoints, and files that hold settings and paths of the machine.
NOT_PUSHED = (
    ".*", "_*", "checkpoint-*", "runs/*", "run.json", "config.yaml", "result.json", "trainer_state.json",
    "nonfinite-*",
)  # fmt: skip


class PushError(RuntimeError):
    """A model could not be pushed; says what to run instead."""


def make_repository(args: TrainingArguments, name: str, token: str | None = None, private: bool | None = None) -> str:
    """Makes the repository that a run will push to, if it is new, and returns its whole id; all processes call it.

    Where the network or the server fails it says so and returns `name`: [`push`] tries again when training is over.

    Raises:
        RuntimeError: On every process, if pushing cannot work later either: better now than after hours.
    """
    whole, error = name, None
    if args.process_index == 0:
        try:
            if token is not None and token != token.strip():
                raise ValueError("the token has white space around it: give it without")
            api = HfApi(token=token)
            whole = api.create_repo(name, private=private, exist_ok=True).repo_id
            api.auth_check(whole, write=True)  # one that exists may be readable only
        except Exception as caught:
            if is_transient(caught):
                print(f"The Hub fails ({reason(caught)}): pushing is tried when training is over.", flush=True)
            else:
                error = PushError(reason(caught))
    raise_if_any_rank_failed(f"--push_to_hub cannot work for {name}", error)
    return whole


def push(
    folder: str | Path,
    repo_id: str,
    commit_message: str,
    token: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
) -> CommitInfo:
    """Uploads a finished model's folder, but for what its run keeps beside it, into a repository that is made if new.

    Args:
        folder: Holds weights, configuration, tokenizer and card.
        repo_id: `user/name`, or a name of the user's own.
        commit_message: Of the one commit.
        token: By default that of `hf auth login` or `HF_TOKEN`.
        private: Whether a new repository is private; by default as the account's settings say.
        revision: A branch, made if new; default: main.

    Raises:
        PushError: Whatever went wrong; the folder is as it was.
    """
    try:
        api = HfApi(token=token)
        repo = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        return api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            commit_message=commit_message,
            revision=revision,
            ignore_patterns=list(NOT_PUSHED),
        )
    except Exception as error:  # whatever a network does: training is over, and its output must not be lost to it
        raise PushError(
            f"{folder} was not pushed to {repo_id}: {reason(error)}. Nothing is lost, the model there is whole. Once "
            f"that is mended, run:\n\n    {upload_command(folder, repo_id, private, revision)}\n"
        ) from error


def upload_command(folder: str | Path, repo_id: str, private: bool | None = None, revision: str | None = None) -> str:
    """The command that does by hand what [`push`] does."""
    words = ["hf", "upload", repo_id, str(folder), "."]
    words += [word for pattern in NOT_PUSHED for word in ("--exclude", pattern)]
    words += [] if private is None else ["--private" if private else "--no-private"]
    words += [] if revision is None else ["--revision", revision]
    return shlex.join(words)


def reason(error: Exception) -> str:
    """An error of the Hub's client in one line, with the remedy where it is a missing right."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kind, status = type(error).__name__, _status(error)
    said = f"{kind}{f' {status}' if status else ''}: {lines[0] if lines else 'no further word'}"
    if status in (401, 403) or isinstance(error, LocalTokenNotFoundError):
        return f"{said} (log in with `hf auth login`, or set HF_TOKEN to a token that may write there)"
    return said


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed later: the network or the server failed, not what was asked for."""
    status = _status(error)
    if status is not None:
        return status >= 500 or status in (408, 429)
    return not isinstance(error, (ValueError, LocalTokenNotFoundError, OfflineModeIsEnabled))


def _status(error: Exception) -> int | None:
    return error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else None

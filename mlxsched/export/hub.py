"""Uploading to the Hugging Face Hub with its own library."""

from __future__ import annotations

from pathlib import Path

from mlxsched.errors import RunError, UsageError


def check_name(repo: str) -> None:
    """Raise `UsageError` unless ``repo`` is a name that the Hub allows, with an owner."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UsageError(f"'{repo}' is not a valid repository name: {error}") from error
    if "/" not in repo:
        raise UsageError(f"'{repo}' has no owner. Write OWNER/NAME.")


def upload(folder: Path, files: list[str], repo: str, *, private: bool) -> str:
    """Create ``repo`` if it is not there, upload ``files`` of ``folder`` and return the address."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = HfApi()
    try:
        address = api.create_repo(repo, private=private or None, exist_ok=True)
        api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=files,
            commit_message="Adapter trained with mlxsched",
        )
    except LocalTokenNotFoundError as error:
        raise UsageError("you are not logged in to the Hub. Run `hf auth login`, then push again.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        fix = (
            "Run `hf auth login` with a token that has write access."
            if status in (401, 403)
            else "Try again."
        )
        raise RunError(f"the Hub refused the upload: {error}. {fix}") from error
    except Exception as error:  # the HTTP library's own kinds, which change with its major version
        raise RunError(
            f"cannot reach the Hub: {type(error).__name__}: {error}. Check the network, or write the files with "
            "--dry-run DIR."
        ) from error
    return str(address)

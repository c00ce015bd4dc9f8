"""Fetching a checkpoint from the Hugging Face hub: the only code of the project that touches a network."""

from __future__ import annotations

from pathlib import Path

from qwen3tts_gguf.errors import CheckpointError

__all__ = ["download", "in_cache"]

# What the conversion reads, and the model card for its licence.
PATTERNS = (
    "README.md",
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "speech_tokenizer/config.json",
    "speech_tokenizer/model*.safetensors",
    "speech_tokenizer/model.safetensors.index.json",
)


def download(repo_id: str, revision: str | None = None) -> Path:
    """The hub's snapshot of a repository, in the hub's own cache, with its progress bars and its resuming.

    The folder is named after the commit. HF_HUB_OFFLINE, HF_HOME and the rest of the hub's environment are honoured.
    Raises CheckpointError if huggingface_hub is not installed or the snapshot cannot be had.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise CheckpointError(
            f"{repo_id} is not a folder", hint="to download it from the hub: pip install 'qwen3tts-gguf[hub]'"
        ) from error
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(PATTERNS)))
    except Exception as error:  # the hub, its HTTP client and its file cache each have errors of their own
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(
            f"{repo_id} is not a folder and cannot be downloaded from the hub: {reason}",
            hint="check the name and the network, or give the folder of a checkpoint that you have",
        ) from error


def in_cache(folder: Path, revision: str | None = None) -> tuple[Path, str, str] | None:
    """Snapshot, repository and commit for a folder of the hub's cache; None for any other folder.

        models--OWNER--NAME/snapshots/COMMIT      this one, or one of those above it
        models--OWNER--NAME/refs/main             the commit of a branch

    Raises CheckpointError where the folder of a repository leaves the choice between several snapshots.
    """
    if folder.parent.name == "snapshots" and (repository := _repository(folder.parents[1])):
        return folder, repository, folder.name
    root = folder.parent if folder.name == "snapshots" else folder
    repository = _repository(root)
    if not repository or not (root / "snapshots").is_dir():
        return None
    commits = sorted(path.name for path in (root / "snapshots").iterdir() if path.is_dir())
    ref = root / "refs" / (revision or "main")
    commit = ref.read_text().strip() if ref.is_file() else revision
    if commit is None and len(commits) == 1:
        commit = commits[0]
    if commit not in commits:
        known = ", ".join(commits) or "none"
        raise CheckpointError(f"{folder}: there is no snapshot {revision or 'main'}", hint=f"known snapshots: {known}")
    return root / "snapshots" / commit, repository, commit


def _repository(folder: Path) -> str:
    """models--Qwen--Name -> Qwen/Name; "" for other names."""
    kind, *parts = folder.name.split("--")
    return "/".join(parts) if kind == "models" and parts and all(parts) else ""

"""User-facing errors of the Hugging Face hub: `raise explained(params.download, problem) from problem`.

Each names the next step. Retries are done by the hub's library (five times).
"""

import os

from tinygpt import config
from tinygpt.errors import NO_SPACE


def explained(section: config.Download, problem: Exception, what: str = "") -> Exception:
    """An error of the hub or its libraries as a sentence with the next step; a full disk is returned unchanged."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    if isinstance(problem, OSError) and problem.errno in NO_SPACE:
        return problem
    if isinstance(problem, LocalEntryNotFoundError) and isinstance(problem.__cause__, Exception):
        problem = problem.__cause__  # the reason the hub was not reached
    name, page, kind = section.dataset, address(section.dataset), _kind(problem)
    log_in = "run `hf auth login` or set HF_TOKEN"
    if kind == "revision":
        return ValueError(f"{what}{name} has no commit {section.revision} (download.revision).{_newest(section)}")
    sentences = {
        "gated": f"{name} is gated: its owners require an agreement. See {page}, then {log_in}.",
        "unknown": f"The hub shows no dataset {name}. Check download.dataset; if it is private, {log_in}.",
        "forbidden": f"The hub refuses {name} to your token (403). See {page}, and `hf auth whoami`.",
        "busy": f"The hub limits requests (429) for {name}. Wait some minutes, or {log_in}, which raises the limit.",
        "offline": f"{name} is not (all) in the hub's cache, and HF_HUB_OFFLINE is set. Unset it for the first fetch.",
        "unreachable": f"{name} could not be fetched from {page} ({short(problem)}). Try again with a network "
        "(finished files are kept); HF_ENDPOINT names a mirror; or save the files and set download.dataset to their "
        "folder.",
    }
    return ConnectionError(what + sentences[kind])


def _kind(problem: Exception) -> str:
    """The kind of a hub error: a key of the messages in `explained`."""
    from huggingface_hub import constants, errors

    kinds = {  # GatedRepoError first: it is a subclass of RepositoryNotFoundError
        errors.GatedRepoError: "gated",
        errors.RevisionNotFoundError: "revision",
        errors.RepositoryNotFoundError: "unknown",
    }
    for kind, name in kinds.items():
        if isinstance(problem, kind):
            return name
    if constants.is_offline_mode():
        return "offline"
    status = getattr(getattr(problem, "response", None), "status_code", None)
    statuses = {401: "unknown", 404: "unknown", 403: "forbidden", 429: "busy"}
    return statuses.get(status, "unreachable") if isinstance(status, int) else "unreachable"


def _newest(section: config.Download) -> str:
    import huggingface_hub

    try:
        newest = huggingface_hub.HfApi().dataset_info(section.dataset).sha
    except Exception:  # the message is complete without the newest commit
        return f" `git ls-remote {address(section.dataset)} main` prints the newest."
    return f" Its newest is {newest}: `-S download.revision={newest}`."


def address(name: str) -> str:
    return f"{(os.environ.get('HF_ENDPOINT') or 'https://huggingface.co').rstrip('/')}/datasets/{name}"


def short(problem: Exception) -> str:
    return f"{' '.join(str(problem).split()) or type(problem).__name__:.300}"

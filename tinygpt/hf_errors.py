"""Errors of the Hugging Face hub as sentences: `raise explained(params.download, problem) from problem`.

Each says what to do next. Left out: trying again, which the hub's library does by itself (five times, where it helps).
"""

import os

from tinygpt import config
from tinygpt.errors import NO_SPACE


def explained(section: config.Download, problem: Exception, what: str = "") -> Exception:
    """A problem of the hub or its libraries, as a sentence with the next step; a full disk stays one."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    if isinstance(problem, OSError) and problem.errno in NO_SPACE:
        return problem
    if isinstance(problem, LocalEntryNotFoundError) and isinstance(problem.__cause__, Exception):
        problem = problem.__cause__  # why the hub was not reached says more than that the cache lacks it
    name, page, kind = section.dataset, address(section.dataset), _kind(problem)
    log_in = "run `hf auth login` or set HF_TOKEN"
    if kind == "revision":
        return ValueError(f"{what}{name} has no commit {section.revision} (download.revision).{_newest(section)}")
    sentences = {
        "gated": f"{name} is gated: its owners ask for something first. See {page}, then {log_in}.",
        "unknown": f"The hub shows no dataset {name}. Check download.dataset; if it is private, {log_in}.",
        "forbidden": f"The hub refuses {name} to your token (403). See {page}, and `hf auth whoami`.",
        "busy": f"The hub was asked too often (429) for {name}. Wait some minutes, or {log_in}: members may ask more.",
        "offline": f"{name} is not (all) in the hub's cache, and HF_HUB_OFFLINE is set. Unset it once, with a network; "
        "afterwards it can be set again.",
        "unreachable": f"{name} could not be fetched from {page} ({short(problem)}). Try again with a network (what "
        "has come is kept); HF_ENDPOINT names a mirror; or save the files and set download.dataset to their folder.",
    }
    return ConnectionError(what + sentences[kind])


def _kind(problem: Exception) -> str:
    """Which problem of the hub this is."""
    from huggingface_hub import constants, errors

    kinds = {  # a gated dataset is an unknown one too, to the library
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
    except Exception:  # of any kind; the problem that is being told stands without it
        return f" `git ls-remote {address(section.dataset)} main` prints the newest."
    return f" Its newest is {newest}: `-S download.revision={newest}`."


def address(name: str) -> str:
    return f"{(os.environ.get('HF_ENDPOINT') or 'https://huggingface.co').rstrip('/')}/datasets/{name}"


def short(problem: Exception) -> str:
    return f"{' '.join(str(problem).split()) or type(problem).__name__:.300}"

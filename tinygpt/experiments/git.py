"""Run git in the current repository: `repository.git("rev-parse", "HEAD")`.

Where git is missing, finds no repository, or refuses the one that it finds, its reason is the error.
"""

import os
import subprocess


def git(*words: str) -> str:
    """What git prints; nothing where it does not know what was asked for, such as a revision.

    FileNotFoundError where there is no git, or no repository; PermissionError where git refuses it, since it belongs to
    somebody else.
    """
    try:
        done = subprocess.run(["git", *words], capture_output=True, check=False, env=os.environ | {"LC_ALL": "C"})
    except FileNotFoundError:
        raise FileNotFoundError(
            "git is not installed here, and DVC needs it. Install it, and run this again."
        ) from None
    reason = done.stderr.decode("utf-8", errors="replace")
    if "not a git repository" in reason:
        raise FileNotFoundError(
            "git finds no repository here, and DVC needs one. Clone the repository instead of unpacking an archive, or "
            "make one: git init && git add -A && git commit -m start"
        )
    if "safe.directory" in reason:
        told = reason.removeprefix("fatal: ").strip().replace("\n", ". ", 1)
        raise PermissionError(f"git refuses this repository: {' '.join(told.split())}")
    return done.stdout.decode("utf-8") if done.returncode == 0 else ""

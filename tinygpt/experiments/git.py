"""Run git in the current repository: `git("rev-parse", "HEAD")`."""

import os
import subprocess


def git(*words: str) -> str:
    """What git prints; "" if git fails, for example on an unknown revision.

    Raises FileNotFoundError without git or a repository, and PermissionError if git refuses a repository that belongs
    to another user.
    """
    try:
        done = subprocess.run(["git", *words], capture_output=True, check=False, env=os.environ | {"LC_ALL": "C"})
    except FileNotFoundError:
        raise FileNotFoundError("git is not installed here, and DVC needs it. Install git and try again.") from None
    reason = done.stderr.decode("utf-8", errors="replace")
    if "not a git repository" in reason:
        raise FileNotFoundError(
            "git finds no repository here, and DVC needs one. Clone the repository instead of unpacking an archive, or "
            "make one: git init && git add -A && git commit -m start"
        )
    if "safe.directory" in reason:
        message = reason.removeprefix("fatal: ").strip().replace("\n", ". ", 1)
        raise PermissionError(f"git refuses this repository: {' '.join(message.split())}")
    return done.stdout.decode("utf-8") if done.returncode == 0 else ""

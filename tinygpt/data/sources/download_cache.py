"""Files from the web, kept in .tinygpt/downloads, each named by its SHA-256: `path, digest = fetch(url, sha256)`.

A cached file needs no network. It is verified at every use, and fetched again if damaged; addresses must be https, also
after redirects. `downloaded` finds a file by its SHA-256; `keep` adds a file that another program downloaded (pip).

Not pooch: it follows a redirect away from https, and knows no limit of size.

Left out: resuming a download, and detecting that an address without a SHA-256 has new content: the first content is
used until .tinygpt/downloads is removed.
"""

import hashlib
import http.client
import re
import shutil
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from tinygpt.files import checksums
from tinygpt.files.atomic import writing
from tinygpt.files.paths import hidden
from tinygpt.files.text import read_json, write_json

CHUNK = 2**20  # bytes read at once
MOST_FETCHED = 20 * 10**9  # bytes of one file

Opener = Callable[[str], AbstractContextManager[Any]]  # an address → a response, like urllib's


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *request: Any) -> Any:
        if not request[-1].startswith("https://"):
            raise OSError(f"it is redirected to {request[-1]}, which is not https")
        return super().redirect_request(*request)


def _open(url: str) -> AbstractContextManager[Any]:
    if not url.startswith("https://"):
        raise OSError("it is not https")
    url = urllib.parse.quote(
        url, safe="%/:=&?~#+!$,;'@()*[]"
    )  # quote characters that browsers show unquoted: ü, spaces
    response: AbstractContextManager[Any] = urllib.request.build_opener(_HttpsOnly).open(url, timeout=60)
    return response


def fetch(
    url: str, sha256: str | None, opener: Opener = _open, advance: Callable[[int], object] = lambda size: None
) -> tuple[Path, str]:
    """The cached file of an address and its SHA-256; `advance` is called with the bytes downloaded.

    Without `sha256`, the first content of an address is used again. Raises ConnectionError if it cannot be fetched,
    ValueError if the SHA-256 differs.
    """
    index = hidden("downloads/addresses.json")
    digests: Any = {}
    with suppress(FileNotFoundError, ValueError):
        digests = read_json(index)
    digest = sha256 or (digests.get(url) if isinstance(digests, dict) else None)
    kept = downloaded(digest)
    if kept is None:
        with tempfile.TemporaryDirectory(dir=_folder()) as folder:
            digest = _stream(url, Path(folder) / "file", opener, advance)
            kept = keep(Path(folder) / "file", sha256 or digest, url)
            if not sha256:
                write_json(index, {**(digests if isinstance(digests, dict) else {}), url: digest})
    return kept, kept.name


def downloaded(digest: object) -> Path | None:
    """The cached file with this SHA-256, or None if it is missing or damaged."""
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        return None
    path = hidden("downloads") / digest
    return path if path.is_file() and checksums.sha256(path) == digest else None


def keep(path: Path, digest: str, origin: str) -> Path:
    """Copy a download into the cache. Raises ValueError if its SHA-256 is not `digest`."""
    found = checksums.sha256(path)
    if found != digest:
        raise ValueError(
            f"{origin} has the SHA-256 {found}, not {digest}. It was changed, or damaged in transit: try again, and "
            "use it only if you know why."
        )
    with writing(_folder() / digest) as partial:
        shutil.copyfile(path, partial)
    return _folder() / digest


def _stream(url: str, path: Path, opener: Opener, advance: Callable[[int], object]) -> str:
    """Download an address to `path`; returns its SHA-256."""
    digest, size = hashlib.sha256(), 0
    try:
        with opener(url) as response, path.open("wb") as file:
            expected = response.headers.get("Content-Length")
            while chunk := response.read(CHUNK):
                size += file.write(chunk)
                digest.update(chunk)
                advance(len(chunk))
                if size > MOST_FETCHED:
                    raise ValueError(f"{url} has more than {MOST_FETCHED:,} bytes. Fetch a part of it yourself.")
        if expected is not None and size != int(expected):
            raise OSError(f"it ended after {size} of {expected} bytes")
    except (OSError, http.client.HTTPException, UnicodeError) as problem:
        raise ConnectionError(
            f"{url} could not be fetched ({problem}). Try again with a network, or save it yourself and set "
            "download.path to the file and download.url to null."
        ) from None
    return digest.hexdigest()


def _folder() -> Path:
    folder = hidden("downloads")
    folder.mkdir(parents=True, exist_ok=True)
    return folder

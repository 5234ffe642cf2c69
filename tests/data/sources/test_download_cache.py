"""What was fetched is kept, and is what it should be (data/sources/download_cache.py). No test uses the network."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinygpt.data.sources import download_cache
from tinygpt.files import paths
from tinygpt.files.text import write_json

pytestmark = pytest.mark.usefixtures("here")


def opener(data: bytes, length: int | None = None) -> Callable[[str], Any]:
    """Stands in for the network: answers every address with `data`."""
    response = io.BytesIO(data)
    response.headers = {} if length is None else {"Content-Length": str(length)}  # type: ignore[attr-defined]
    return lambda url: response


def offline(url: str) -> Any:
    raise OSError("no network")


def test_what_was_fetched_once_is_read_offline_with_and_without_a_hash() -> None:
    data = b"text" * 500
    digest = hashlib.sha256(data).hexdigest()
    path, found = download_cache.fetch("https://a.org/b.txt", None, opener(data, 2000))
    assert (path, found) == (paths.hidden(f"downloads/{digest}"), digest)
    assert path.read_bytes() == data
    assert download_cache.fetch("https://a.org/b.txt", None, offline) == (path, digest)
    assert download_cache.fetch("https://elsewhere.org/", digest, offline) == (path, digest)
    with pytest.raises(ConnectionError, match=r"could not be fetched \(no network\).*download.url to null"):
        download_cache.fetch("https://a.org/c.txt", None, offline)


def test_a_damaged_download_is_fetched_again() -> None:
    path, digest = download_cache.fetch("https://a.org/b", None, opener(b"text"))
    path.write_bytes(b"tex")
    assert download_cache.fetch("https://a.org/b", digest, opener(b"text"))[0].read_bytes() == b"text"


def test_a_download_that_is_cut_short_or_differs_is_refused_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConnectionError, match="ended after 4 of 5 bytes"):
        download_cache.fetch("https://a.org/b", None, opener(b"text", 5))
    with pytest.raises(ValueError, match=rf"SHA-256 {hashlib.sha256(b'text').hexdigest()}, not {'0' * 64}"):
        download_cache.fetch("https://a.org/b", "0" * 64, opener(b"text"))
    monkeypatch.setattr(download_cache, "MOST_FETCHED", 3)
    with pytest.raises(ValueError, match="more than 3 bytes"):
        download_cache.fetch("https://a.org/b", None, opener(b"text"))
    assert not list(paths.hidden("downloads").iterdir())


def test_a_hash_from_the_memory_never_becomes_a_path(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinygpt.files.checksums.sha256", lambda path: pytest.fail(f"{path} was opened"))
    (here / "secret").write_text("mine")
    write_json(paths.hidden("downloads/addresses.json"), {"https://a.org/b": "../../secret"})
    with pytest.raises(ConnectionError):
        download_cache.fetch("https://a.org/b", None, offline)


def test_an_address_is_asked_for_as_browsers_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(_: object, url: str, timeout: float) -> Any:
        asked.append(url)
        return opener(b"x")(url)

    monkeypatch.setattr("urllib.request.OpenerDirector.open", answer)
    download_cache.fetch("https://a.org/Über uns/%C3%A4?a=b&c=ü#d", None)
    assert asked == ["https://a.org/%C3%9Cber%20uns/%C3%A4?a=b&c=%C3%BC#d"]


def test_only_https_is_fetched_also_after_a_redirect() -> None:
    with pytest.raises(ConnectionError, match="not https"):
        download_cache.fetch("file:///etc/passwd", None)
    with pytest.raises(OSError, match=r"redirected to http://a.org, which is not https"):
        download_cache._HttpsOnly().redirect_request(None, None, 302, "", {}, "http://a.org")

"""Datasets of the Hugging Face hub, kept: `for record in rows(params.download)`, each a dict of columns.

A dataset is a list of files at a commit. The list is fetched once and cached in .tinygpt/downloads/hub. The files of
the train split are fetched one at a time, as they are read, into the hub's shared cache ($HF_HOME). So `max_documents`
fetches only the files it needs, and a second run needs no network. Each file is verified against its hash in the list
at every use. The library `datasets` determines the files of the train split from a folder of empty files with the same
names, without a network.

HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE work as usual. Left out: fetching a part of a file.
"""

import hashlib
import itertools
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tinygpt import config
from tinygpt.files.checksums import sha256
from tinygpt.files.paths import hidden, home
from tinygpt.files.text import check_fetched, read_json, write_json
from tinygpt.hf_errors import address, explained, short

MOST_FETCHED = 20 * 10**9  # bytes of one dataset; the same as for one file
CARDS = ("README.md", ".huggingface.yaml")  # define the configurations of a dataset
COMMIT = "[0-9a-f]{40}"
SHARD = re.compile(r"(.*-)(\d{5})-of-(\d{5})([.-].*)")  # data/train-00000-of-00004-2d5a1467fff1081b.parquet


@dataclass(frozen=True)
class Listed:
    """A file of a dataset: its size in bytes, and its SHA-256, or git's SHA-1 of it as a blob."""

    size: int | None
    digest: str | None


Listing = dict[str, Listed]  # path in the dataset → size and hash


def check(section: config.Download) -> None:
    """Check the section without the network. Raises ValueError or FileNotFoundError."""
    name = section.dataset
    if name and Path(name).is_dir():
        return
    if name and (home() / name).is_dir():
        raise FileNotFoundError(
            f"{name} is not in this experiment's copy, because git does not track it. Run `git add {name}` "
            "(no commit is needed) and queue it again, or run it in the workspace."
        )
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
        raise FileNotFoundError(
            f"There is no folder {name!r}. Set download.dataset to one, or to owner/name on the hub."
        )
    if not re.fullmatch(COMMIT, section.revision):
        branch = "main" if re.fullmatch("[0-9a-f]*", section.revision) else section.revision
        raise ValueError(
            f"download.revision is {section.revision!r}; a branch or a tag can move, and the text with it. Write a "
            f"commit (40 hexadecimal digits): `git ls-remote {address(name)} {branch}` prints it."
        )


def rows(section: config.Download, advance: Callable[[int], object] = lambda size: None) -> Iterator[dict[str, Any]]:
    """The records of the train split, in order, read lazily; `advance` is called with the bytes fetched.

    The first file is fetched before iteration. Raises ValueError, FileNotFoundError or ConnectionError.
    """
    check(section)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    folder = Path(section.dataset)
    if folder.is_dir():
        return _read(section, *_train_files(section, folder))
    listing = _listing(section)
    builder, names = _planned(section, listing)
    size = sum(listing[name].size or 0 for name in names)
    if section.max_documents is None and size > MOST_FETCHED:
        raise ValueError(
            f"The train split of {section.dataset} has {size:,} bytes in {len(names)} files; more than "
            f"{MOST_FETCHED:,} are fetched only in part. Set download.max_documents."
        )
    paths = (_fetched(section, name, listing[name], advance) for name in names)
    return _read(section, builder, itertools.chain([next(paths)], paths))


# Which files


def _listing(section: config.Download) -> Listing:
    """The files of the dataset at its commit: from our cache, from the hub, or (offline) from the hub's cache."""
    cache = hidden("downloads/hub") / f"{section.dataset.replace('/', '--')}@{section.revision}.json"
    try:
        return {name: Listed(**listed) for name, listed in read_json(cache).items()}
    except (FileNotFoundError, ValueError, AttributeError, TypeError):
        pass
    import huggingface_hub

    try:
        tree = list(
            huggingface_hub.HfApi().list_repo_tree(
                section.dataset, recursive=True, revision=section.revision, repo_type="dataset"
            )
        )
    except Exception as problem:  # the library and its dependencies raise many types
        cached = _cached(section)
        if not cached:
            raise explained(section, problem) from problem
        return cached
    found = [entry for entry in tree if isinstance(entry, huggingface_hub.hf_api.RepoFile)]
    listing = {
        file.path: Listed(file.size, file.lfs.sha256 if file.lfs else file.blob_id)
        for file in sorted(found, key=lambda file: file.path)
    }
    write_json(cache, {name: asdict(listed) for name, listed in listing.items()})
    return listing


def _cached(section: config.Download) -> Listing:
    """The files of the commit in the hub's cache, and missing shards, which follow from the names of the others."""
    from huggingface_hub import constants

    folder = f"datasets--{section.dataset.replace('/', '--')}"
    snapshot = Path(constants.HF_HUB_CACHE, folder, "snapshots", section.revision)
    listing: Listing = {}
    for path in sorted(snapshot.rglob("*")):
        if path.is_file():
            blob = path.readlink().name if path.is_symlink() else ""
            listing[path.relative_to(snapshot).as_posix()] = Listed(None, blob or None)
    there = {(shard[1], shard[2], shard[3]): shard[4] for name in listing if (shard := SHARD.fullmatch(name))}
    for prefix, _, count in list(there):
        for number in (f"{number:05}" for number in range(int(count))):
            if (prefix, number, count) not in there:  # the ending may differ, but the shard is missing anyway
                ending = next(end for (start, _, of), end in there.items() if (start, of) == (prefix, count))
                listing[f"{prefix}{number}-of-{count}{ending}"] = Listed(None, None)
    return dict(sorted(listing.items()))


def _planned(section: config.Download, listing: Listing) -> tuple[Any, list[str]]:
    """The `datasets` builder of the dataset, and the files that it would read."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve() / PurePosixPath(section.dataset).name
        for name in listing:
            if ".." in PurePosixPath(name).parts or not (folder / name).is_relative_to(folder):
                raise ValueError(f"{section.dataset} lists a file {name!r}, outside of itself. Use another dataset.")
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        for name in CARDS:
            if name in listing:
                card = _fetched(section, name, listing[name], lambda size: None)
                (folder / name).write_bytes(card.read_bytes())
        builder, paths = _train_files(section, folder)
        names = [os.path.relpath(path, folder) for path in paths]
        unlisted = [name for name in names if name not in listing]
        if unlisted:
            raise ValueError(f"The card of {section.dataset} names {unlisted[0]}, which is not in it. Use another.")
        return builder, names


def _train_files(section: config.Download, folder: Path) -> tuple[Any, list[Path]]:
    """The `datasets` builder of a folder, and the files of its train split, in order; none is read."""
    import datasets

    datasets.disable_progress_bars()
    name, wanted = section.dataset, section.config
    try:
        known = datasets.get_dataset_config_names(str(folder))
        found = wanted in known or (wanted is None and (len(known) == 1 or "default" in known))
        builder = found and datasets.load_dataset_builder(str(folder), wanted, cache_dir=str(folder / ".cache"))
    except Exception as problem:  # the library and its dependencies raise many types
        raise ValueError(
            f"The files of {name} cannot be read as a dataset ({short(problem)}). Dataset scripts are not run, but "
            "many such datasets have a Parquet copy: set download.revision to the commit that "
            f"`git ls-remote {address(name)} refs/convert/parquet` prints."
        ) from problem
    if not builder:
        raise ValueError(f"download.config is {wanted or 'null'}; set it to one that {name} has: {', '.join(known)}.")
    splits = builder.config.data_files or {}
    if "train" not in splits:
        raise ValueError(f"{name} has no train split, only {', '.join(map(str, splits))}. Use another dataset.")
    return builder, [Path(str(path)) for path in splits["train"]]


# Their bytes


def _fetched(section: config.Download, name: str, listed: Listed, advance: Callable[[int], object]) -> Path:
    """A file of the dataset, from the hub's cache or the hub; verified, and fetched once more if damaged."""
    import huggingface_hub

    for again in (False, True):
        try:
            path = Path(
                huggingface_hub.hf_hub_download(
                    section.dataset,
                    name,
                    repo_type="dataset",
                    revision=section.revision,
                    force_download=again,
                    tqdm_class=_reporting_to(advance),
                )
            )
        except Exception as problem:
            what = f"{name} is damaged in the hub's cache, and " if again else ""
            raise explained(section, problem, what) from problem
        found = _digest(path, listed.digest)
        if found == listed.digest:
            return path
    raise ValueError(
        f"{name} of {section.dataset} has the hash {found}, not {listed.digest}. It was changed, or damaged in "
        "transit: try again, or unset HF_ENDPOINT if it names a mirror."
    )


def _digest(path: Path, like: str | None) -> str | None:
    """The hash of a file, of the same kind as `like`: SHA-256, or git's SHA-1 of a blob."""
    if like is None or not re.fullmatch(f"{COMMIT}|[0-9a-f]{{64}}", like):
        return like
    if len(like) == 64:
        return sha256(path)
    data = path.read_bytes()  # files outside of LFS are small
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _reporting_to(advance: Callable[[int], object]) -> Any:
    """An invisible progress bar class that calls `advance` with the bytes."""
    from tqdm import tqdm

    class Silent(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            advance(int(n or 0))
            return None

    return Silent


def _read(section: config.Download, builder: Any, paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """The records of all files, in order."""
    for path in paths:
        check_fetched(path)
        try:
            builder.config.data_files = {"train": [str(path)]}
            found = builder.as_streaming_dataset("train")
            if section.text_column in (found.column_names or ()):
                found = found.select_columns([section.text_column])  # do not decode images and audio
            yield from found
        except Exception as problem:
            raise ValueError(
                f"{path} of {section.dataset} cannot be read ({short(problem)}). Use another."
            ) from problem

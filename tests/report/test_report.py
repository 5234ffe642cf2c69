"""The report on a run stands alone, shows every chart, escapes what models write, and takes runs from DVC's cache."""

import dataclasses
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.experiments.test_compare import ADAMW, MUON, run
from tests.project import Project
from tinygpt.cli import main
from tinygpt.experiments import compare
from tinygpt.experiments.artifacts import Outputs, gather
from tinygpt.plots import curves
from tinygpt.report import build, charts

HOSTILE = "</pre><script>alert(1)</script><img src=http://example.org/x onerror=alert(2)>&amp;\"'{{ names }}{% raw %}"
CURVES = {"baselines", "loss", "compute", "seconds", "learning-rate", "gradient-norm"}
TRAIN = [
    {"step": float(s), "loss": 5 - s / 50, "learning_rate": s / 100, "gradient_norm": 1.5 / s} for s in range(1, 101)
]
VALIDATION = [{"step": float(s), "loss": 5 - s / 60} for s in range(0, 101, 20)]
EVALUATION: dict[str, Any] = {
    "loss": 3.3,
    "perplexity": 27.1,
    "bits_per_byte": 2.36,
    "bits_per_byte_standard_error": 0.01,
}
EVALUATION |= {"tokens": 1000, "bytes": 2000, "baselines": {"uniform": 6.0, "xz": 2.5, "ppmd": 1.9}}
NUMBERS = {"bits_per_byte": 2.0, "bits_per_token": 5.0, "distinct_1": 0.5, "distinct_2": 0.9, "distinct_3": 1.0}
NUMBERS |= {"known_words": 0.95, "longest_copy": len(HOSTILE)}


def sample(prompt: str, completion: str, **more: Any) -> dict[str, Any]:
    settings = {"temperature": 0.8, "top_p": 1.0}
    metrics = NUMBERS | {"copied": HOSTILE}
    hashes = {"model": "b" * 64}
    sampled = {"prompt": prompt, "completion": completion, "seed": 1, "settings": settings, "hashes": hashes}
    return sampled | {"metrics": metrics} | more


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("picture") / "a.png"
    curves.learning_rate(path, TRAIN)
    return path.read_bytes()


def outputs(picture: bytes, name: str = HOSTILE, seed: int = 1, **changes: Any) -> Outputs:
    """All that a run can leave, with a name and samples that would break a report."""
    row = {"temperature": 0.8, "top_p": 1.0, "samples": 16, **NUMBERS}
    return Outputs(
        run(seed, 2.36, name, **changes),
        EVALUATION,
        {"best_step": 100, "best_validation_loss": 3.3},
        TRAIN,
        VALIDATION,
        {step: step / 2 for step in range(0, 101, 20)},
        [sample(HOSTILE, HOSTILE), sample("b", "c"), sample("b", HOSTILE, grid=True)],
        {"grid": [row], "held_out": dict.fromkeys(NUMBERS)},
        {"text": {"train": "a" * 64, "validation": "c" * 64}, "tokenizer": "d" * 64, "params": "e" * 64},
        "b" * 64,
        dict.fromkeys(charts.CAPTIONS, picture),
    )


class Parsed(HTMLParser):
    """The tags, links, text and figures of a report, as a browser would find them."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.figures: list[str] = []
        self.places: list[str] = []
        self.events: list[str] = []
        self.text = ""
        self.source = file.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.tags.append(tag)
        self.links += [found[name] or "" for name in ("src", "href", "srcset", "data", "action") if name in found]
        self.places += [found["id"] or ""] if "id" in found else []
        self.events += [name for name in found if name.startswith("on")]
        self.figures += [(found["id"] or "").removeprefix("chart-")] if tag == "figure" else []

    def handle_data(self, data: str) -> None:
        self.text += data


def written(tmp_path: Path, *runs: Outputs, **more: Any) -> Parsed:
    build.write(tmp_path / "report.html", runs, **more)
    return Parsed(tmp_path / "report.html")


def assert_not_interpreted(found: Parsed) -> None:
    assert found.tags.count("img") == len(found.figures)
    assert found.events == []
    assert "<script" not in found.source


def test_a_report_needs_nothing_but_itself(tmp_path: Path, picture: bytes) -> None:
    found = written(tmp_path, outputs(picture))
    assert {link[:5] if link.startswith("data:") else link[:1] for link in found.links} == {"data:", "#"}
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(found.tags)
    style = found.source.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert {link[1:] for link in found.links if link[0] == "#"} <= set(found.places)


def test_a_run_in_this_folder_has_a_report_where_git_knows_nothing(
    tmp_path: Path, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "<tr><td>git commit</td><td>not known</td></tr>" in written(tmp_path, outputs(picture, ".")).source


def test_what_models_write_is_shown_and_never_interpreted(tmp_path: Path, picture: bytes) -> None:
    run = outputs(picture)
    run.run.settings[HOSTILE] = HOSTILE
    run.evaluation = EVALUATION | {"baselines": {"<script>": 6.0}}
    run.samples[0]["seed"] = HOSTILE
    run.pictures[HOSTILE] = picture
    found = written(tmp_path, run, notes=[HOSTILE])
    assert_not_interpreted(found)
    assert (
        found.text.count(HOSTILE) >= 9
    )  # title, name, note, setting, prompt, completion, seed, copied passage, figure


def test_names_of_several_runs_are_shown_and_never_interpreted(tmp_path: Path, picture: bytes) -> None:
    runs = [outputs(picture), outputs(picture)]
    runs[0].missing, runs[1].seconds = [HOSTILE], {}
    (comparison,) = compare.by_settings("optimizer=muon", "optimizer=adamw", MUON + ADAMW)
    hostile = dataclasses.replace(comparison, a=compare.Side(HOSTILE, MUON))
    found = written(tmp_path, *runs, comparisons=[hostile])
    assert_not_interpreted(found)
    assert found.text.count(HOSTILE) >= 12  # and the verdict, the missing file, the grid


def test_the_report_of_a_run_holds_every_chart_and_every_picture_of_its_inside(tmp_path: Path, picture: bytes) -> None:
    found = written(tmp_path, outputs(picture, "here"))
    assert set(found.figures) == CURVES | {"temperatures-here"} | set(charts.CAPTIONS)
    assert "2.00 bits per byte" in found.text
    assert "0.50 / 0.90 / 1.00" in found.text
    assert "2.00 · 0.90 · 95%" in found.text
    assert "bbbbbbbbbbbbbbbb" in found.text


def test_several_runs_stand_side_by_side_and_what_differs_is_marked(tmp_path: Path, picture: bytes) -> None:
    runs = [outputs(picture, "a"), outputs(picture, "b", seed=2, model__n_layer=6)]
    found = written(tmp_path, *runs)
    assert set(found.figures) == {"baselines", "steps", "compute", "seconds", "temperatures-a", "temperatures-b"}
    assert '<tr class="differs"><td>model.n_layer</td><td>3</td><td>6</td></tr>' in found.source
    assert '<tr class="differs"><td>seed</td><td>1</td><td>2</td></tr>' in found.source
    assert "<tr><td>train.optimizer</td><td>muon</td><td>muon</td></tr>" in found.source


def test_long_names_are_cut_for_pictures_and_stay_apart() -> None:
    names = ["muon", "a" * 40, "a" * 41, "a" * 40 + "b"]
    short = charts.legends(names)
    assert short[0] == "muon"
    assert max(map(len, short)) <= charts.LONGEST + 2
    assert len(set(short)) == len(names)


def test_two_runs_of_one_name_can_be_told_apart(picture: bytes) -> None:
    assert build.labels([outputs(picture, "x"), outputs(picture, "."), outputs(picture, "x")]) == [
        "x (1)",
        "this folder",
        "x (3)",
    ]


def test_runs_on_different_texts_are_not_set_beside_one_baseline(tmp_path: Path, picture: bytes) -> None:
    other = outputs(picture, "b")
    other.evaluation = EVALUATION | {"bytes": 7}
    other.evaluation["baselines"] = {"xz": 3.0}
    found = written(tmp_path, outputs(picture, "a"), other)
    assert "the runs were evaluated on different texts" in found.text
    assert "baselines" not in found.figures


def test_what_is_not_there_is_said_and_the_rest_is_shown(tmp_path: Path) -> None:
    alone = gather(run(1, 2.36, "a row of results"))
    found = written(tmp_path, alone)
    assert "2.360 bits per byte" in found.text
    assert "The report on a row of results lacks data/evaluation/metrics.json" in found.text
    assert "only the numbers in the results file are known" in found.text
    assert found.figures == []
    assert {link[1:] for link in found.links} <= set(found.places)  # none to a section that is not there


def test_the_report_of_two_sets_holds_the_verdict(tmp_path: Path, picture: bytes) -> None:
    (comparison,) = compare.by_settings("optimizer=muon", "optimizer=adamw", MUON + ADAMW)
    found = written(tmp_path, outputs(picture, "a"), outputs(picture, "b"), comparisons=[comparison])
    assert "They differ beyond their seeds: A is better." in found.text


def test_without_a_report_two_sets_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(main.app, ["compare", "only-one"])
    assert isinstance(done.exception, ValueError)
    assert "Name two sets of runs: tinygpt compare A B; or write a report" in str(done.exception)


@pytest.mark.slow
def test_a_report_takes_experiments_from_the_cache_and_leaves_the_workspace_alone(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.folder)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    project.dvc("exp", "run", "--name", "fast", "-S", "train.learning_rate=0.02")
    theirs = json.loads((project.folder / "data/samples/samples.jsonl").read_text().splitlines()[0])["completion"]
    project.restore()
    before = project.results()
    done = CliRunner().invoke(main.app, ["compare", "HEAD", "fast", "--html", str(tmp_path / "two.html")])
    assert done.exit_code == 0, done.output
    found = Parsed(tmp_path / "two.html")
    assert project.results() == before
    assert "Too few runs" in found.text  # the verdict on one run each
    assert "soft missing" not in found.source
    assert theirs in found.text
    assert '<tr class="differs"><td>train.learning_rate</td><td>0.01</td><td>0.02</td></tr>' in found.source
    assert {"steps", "compute", "seconds", "temperatures-HEAD", "temperatures-fast"} <= set(found.figures)
    config = project.folder / ".dvc/config.local"
    kept = config.read_text()
    project.run("dvc", "config", "--local", "cache.dir", str(tmp_path / "empty"))
    try:
        done = CliRunner().invoke(main.app, ["compare", "--html", str(tmp_path / "lost.html"), "fast"])
    finally:
        config.write_text(kept)
    lost = Parsed(tmp_path / "lost.html")
    assert "The report on fast lacks data/training/train.tsv" in lost.text
    assert "DVC's cache has lost it" in lost.text


@pytest.fixture
def browser() -> Any:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_chromium_shows_every_chart_from_a_file_without_a_network(
    browser: Any, tmp_path: Path, picture: bytes, width: int, scheme: str
) -> None:
    build.write(tmp_path / "report.html", [outputs(picture, "here")])
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
    opened, said = context.new_page(), []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda problem: said.append(str(problem)))
    opened.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
    opened.goto((tmp_path / "report.html").as_uri())
    sizes = opened.evaluate(
        "[...document.querySelectorAll('figure')].map(figure => {"
        " const image = figure.querySelector('img'), box = image.getBoundingClientRect();"
        " return [figure.id, image.naturalWidth > 0 && box.width > 100 && box.height > 50] })"
    )
    shown = {name.removeprefix("chart-"): visible for name, visible in sizes}
    assert shown == dict.fromkeys(CURVES | {"temperatures-here"} | set(charts.CAPTIONS), True)
    assert said == []
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing runs off the screen

"""docs/architecture.md is what the imports and the docstrings say."""

from tests.conftest import ROOT
from tools import architecture


def test_the_page_is_that_of_the_imports_and_the_docstrings() -> None:
    written = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    assert written == architecture.page(), "docs/architecture.md is stale: python -m tools.architecture"


def test_it_knows_every_subpackage() -> None:
    folders = {file.parent.name for file in (ROOT / "tinygpt").glob("*/__init__.py")}
    assert set(architecture.LAYERS) == folders

"""docs/reference.md is what the code says."""

import json
import runpy
from collections.abc import Callable

import pyarrow as pa
import pytest

from cnnvis_ray.config import Config
from tests.conftest import ROOT

SCRIPT = ROOT / "docs" / "make_reference.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Callable[..., object]]:
    """What the script defines."""
    return runpy.run_path(str(SCRIPT))


def test_the_reference_is_generated_from_the_code(
    script: dict[str, Callable[..., object]],
) -> None:
    written = (ROOT / "docs" / "reference.md").read_text()
    assert written == script["make_reference"](), "run: make reference"


def test_every_key_and_verb_is_there() -> None:
    page = (ROOT / "docs" / "reference.md").read_text()
    for name, field in Config.model_fields.items():
        below = getattr(field.annotation, "model_fields", {name: None})
        for key in below:
            assert (f"`{name}`" if key == name else f"`{name}.{key}`") in page
    for verb in ("run", "extract", "reduce", "mosaic", "maximize", "explain", "verify", "status"):
        assert f"### cnnvis {verb}\n" in page


def test_the_notebook_has_the_page_s_snippets_executed() -> None:
    make = runpy.run_path(str(ROOT / "docs" / "make_notebook.py"))
    page = (ROOT / "docs/howto/notebook.md").read_text()
    cells = json.loads((ROOT / "docs/howto/reading_a_run.ipynb").read_text())["cells"]
    assert [cell["source"] for cell in cells] == [
        cell["source"] for cell in make["make_cells"](page)
    ], "run: python docs/make_notebook.py FOLDER"
    shown = [output for cell in cells for output in cell.get("outputs", [])]
    assert {output["output_type"] for output in shown} == {"stream", "display_data"}


def test_the_comment_beside_a_column_is_its_meaning(
    script: dict[str, Callable[..., object]],
) -> None:
    schema = pa.schema([("depth", pa.list_(pa.float32())), ("key", pa.string())])
    source = '    ("depth", pa.list_(pa.float32())),  # metres\n    ("key", pa.string()),\n'
    text = "\n".join(script["columns"]("a table", schema, source, ""))  # type: ignore[arg-type]
    assert "| `depth` | `list of float` | metres |" in text
    assert "| `key` | `string` | the image's stable name in its source |" in text

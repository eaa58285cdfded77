"""Writes docs/howto/reading_a_run.ipynb: the snippets of notebook.md, executed on a run.

python docs/make_notebook.py FOLDER, where FOLDER holds runs/quickstart.
"""

import base64
import contextlib
import io
import json
import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent / "howto"
TARGET = HERE / "reading_a_run.ipynb"
PART = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def make_cells(page: str) -> list[dict[str, object]]:
    """Return the page's prose and snippets as cells, without outputs."""
    cells: list[dict[str, object]] = []
    for number, part in enumerate(PART.split(page)):
        text = re.sub(r"\{doc\}`\S+/(\w+)`", r"The \1", part).strip()
        if number % 2:
            cells.append({"cell_type": "code", "metadata": {}, "source": text, "outputs": []})
            cells[-1]["execution_count"] = (number + 1) // 2
        elif text:
            cells.append({"cell_type": "markdown", "metadata": {}, "source": text})
        cells[-1]["id"] = f"cell-{number}"
    return cells


def execute(cells: list[dict[str, object]]) -> None:
    """Run the cells in order and keep what they print and draw."""
    import matplotlib

    matplotlib.use("Agg")
    names: dict[str, object] = {"__name__": "notebook"}
    for cell in cells:
        if cell["cell_type"] == "code":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(str(cell["source"]), "notebook", "exec"), names)
            cell["outputs"] = [*stream(printed.getvalue()), *pictures(names)]


def stream(text: str) -> list[dict[str, object]]:
    """Return printed text as an output."""
    return [{"output_type": "stream", "name": "stdout", "text": text}] if text else []


def pictures(names: dict[str, object]) -> list[dict[str, object]]:
    """Return a figure or an image that a cell made, each shown once."""
    found = []
    for name, save in (("figure", "savefig"), ("picture", "save")):
        shown = names.pop(name, None)
        if shown is not None:
            buffer = io.BytesIO()
            getattr(shown, save)(buffer, format="png")
            data = {"image/png": base64.b64encode(buffer.getvalue()).decode()}
            found.append({"output_type": "display_data", "metadata": {}, "data": data})
    return found


def main(folder: str) -> None:
    """Execute the page in a folder and write the notebook."""
    cells = make_cells((HERE / "notebook.md").read_text(encoding="utf-8"))
    os.chdir(folder)
    execute(cells)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4}
    text = json.dumps(notebook | {"nbformat_minor": 5}, indent=1, ensure_ascii=False)
    TARGET.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])

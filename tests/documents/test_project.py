"""Project files: metadata, license, hooks, CI, and paths that documents name."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import cnnvis_ray
from cnnvis_ray.stages import VERBS
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md"]
PAGES += [ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if "_build" not in page.parts]


def test_the_version_stands_in_one_place() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", cnnvis_ray.__version__)
    assert PROJECT["project"]["dynamic"] == ["version"]
    attribute = PROJECT["tool"]["setuptools"]["dynamic"]["version"]["attr"]
    assert attribute == "cnnvis_ray.__version__"
    for name in ("pyproject.toml", "CITATION.cff", "docs/conf.py"):
        assert f'"{cnnvis_ray.__version__}"' not in (ROOT / name).read_text()


def test_the_license_is_stated_and_there() -> None:
    assert PROJECT["project"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["license"] == "Apache-2.0"


def test_hooks_run_what_make_check_runs() -> None:
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe is not None
    checks = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe[1].splitlines()]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [hook["entry"] for hook in hooks] == checks


def test_ci_runs_what_a_person_runs() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    assert {"run": ".ci/run"} in jobs["all"]["steps"]
    for form in sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")):
        assert yaml.safe_load(form.read_text())


def test_every_dependency_is_pinned() -> None:
    pins = (ROOT / "constraints.txt").read_text().lower().replace("_", "-").splitlines()
    pinned = {line.split("==")[0] for line in pins}
    extras = PROJECT["project"]["optional-dependencies"].values()
    needs = [need for extra in extras for need in extra]
    for need in [*PROJECT["project"]["dependencies"], *needs]:
        name = re.split(r"[\[<>=]", need)[0].lower().replace("_", "-")
        assert name in pinned, need


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    named = re.findall(r"`((?:cnnvis_ray|tests|jobs|docs|deploy|benchmarks)/[\w/.]*\w)`", text)
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    for path in [ROOT / name for name in named] + [page.parent / link for link in links]:
        assert path.exists(), path


def test_tests_that_the_contract_names_exist() -> None:
    page = (ROOT / "docs/explanation/contract.md").read_text()
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", page):
        assert f"def {name}(" in tests, name


def test_extension_points_are_where_contributing_says() -> None:
    rows = re.findall(r"`([A-Z]+)` in `(\S+)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(rows) == 8
    for name, path in rows:
        assert re.search(rf"^{name}(:.*)? = {{", (ROOT / path).read_text(), re.MULTILINE), name
    assert VERBS


@pytest.mark.parametrize("table", ["The way of one image", "The way of one channel"])
def test_a_way_through_the_house_has_at_most_20_files(table: str) -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text().split(f"## {table}\n")[1].split("\n## ")[0]
    rows = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    files = set(re.findall(r"`(cnnvis_ray/\S+\.py)`", rows))
    assert 10 < len(files) <= 20


def test_the_core_uses_every_package_that_it_pulls() -> None:
    """And imports no other: what is not a dependency belongs to an extra."""
    modules = {"scikit-learn": "sklearn", "faiss-cpu": "faiss", "pyyaml": "yaml", "pillow": "PIL"}
    needs = [re.split(r"[\[<>=]", need)[0] for need in PROJECT["project"]["dependencies"]]
    expected = {modules.get(need, need) for need in needs}
    imported = set()
    for path in (ROOT / "cnnvis_ray").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {each.name.split(".")[0] for each in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).split(".")[0])
    of_pydantic = {"pydantic_core", "annotated_types"}
    assert imported - sys.stdlib_module_names - of_pydantic - {"cnnvis_ray"} == expected

"""What is written about metaopt holds: the documentation builds and loads nothing from elsewhere; commands and links exist."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from flows.cli import app
from metaopt_core.spec.loader import SpecError, load
from metaopt_core.spec.schema import file_schema

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]


class _Loaded(HTMLParser):
    """The addresses that a page loads, links to other pages left out."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "a":
            self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "data") and value]


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr[-3000:]
    pages = list(tmp_path.rglob("*.html"))
    assert {"index.html", "reference/spec.html", "reference/command-line.html"} <= {
        str(page.relative_to(tmp_path)) for page in pages
    }
    for page in pages:
        loaded = _Loaded()
        loaded.feed(page.read_text())
        assert loaded.addresses
        assert not [address for address in loaded.addresses if re.match(r"(https?:)?//", address)], page
    for sheet in tmp_path.rglob("*.css"):
        assert not re.search(r"(@import|url\()[\"']?(https?:)?//", sheet.read_text()), sheet


@pytest.mark.slow
def test_the_reference_has_every_key_of_a_pipelines_file(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "docs" / "hooks"))
    try:
        import spec_reference
    finally:
        sys.path.pop(0)
    page = spec_reference.page()
    documented = set(re.findall(r"</a>`(\w+)`", page))
    blocks = [file_schema()["properties"]["pipelines"]["additionalProperties"], *file_schema()["$defs"].values()]
    for block in blocks:
        assert set(block.get("properties", ())) <= documented


def _commands(text: str) -> Iterator[list[str]]:
    """The words of each metaopt command that a page shows."""
    for block in re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL):
        yield from (line.split("#")[0].split()[2:] for line in block.splitlines() if line.startswith("$ metaopt "))
    for line in re.findall(r"`metaopt ([^`\n]+)`", text):
        yield line.split()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_pipelines_that_a_page_shows_exist(page: Path) -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    pipelines = load(ROOT / "pipelines.yaml")
    for words in _commands(page.read_text()):
        name, *rest = words
        if name.startswith("-") or name.isupper():  # `metaopt --version`, `metaopt COMMAND --help`
            continue
        assert name in commands, " ".join(words)
        options = {option for parameter in commands[name].params for option in parameter.opts} | {"--help"}
        for word in rest:
            if word.startswith("-"):
                assert word in options, " ".join(words)
            elif re.fullmatch(r"(sinusoid|omniglot)[\w-]*", word):
                assert word in pipelines, " ".join(words)


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs/tutorial.md"], ids=lambda page: page.name)
def test_mistakes_are_reported_as_a_page_shows_them(page: Path, tmp_path: Path) -> None:
    text = page.read_text()
    [example] = re.findall(r"```yaml\n(.*? {2}five-steps:.*?)```", text, flags=re.DOTALL)
    [shown] = re.findall(r"\$ metaopt plan five-steps.*\n((?:.*\.yaml:.*\n)+)", text)
    shutil.copy(ROOT / "pipelines.yaml", tmp_path)
    changes = {"{steps: 5}": "{step: 5}"}
    if page.name == "README.md":
        changes = {"{lr: 0.01, steps: 5}": "{lr: -0.01, step: 5}", '{cron: "0 3 * * *", timezone: Europe/Berlin}': "{every: soon}"}
    file = tmp_path / "mine.yaml"
    for right, wrong in changes.items():
        assert right in example
        example = example.replace(right, wrong)
    file.write_text(example)
    with pytest.raises(SpecError) as failure:
        load(file)
    assert str(failure.value).replace(f"{tmp_path}/", "") == shown.strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_links_exist(page: Path) -> None:
    generated = {"contributing.md", "security.md", "changelog.md", "spec.md", "command-line.md", "python.md"}
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / link).exists() or Path(link).name in generated, link


def test_the_make_targets_that_pages_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"(?:`|\$ )make ([a-z-]+)", page.read_text()):
            assert target in targets, f"{page}: make {target}"


@pytest.mark.slow
def test_the_library_example_learns(capsys: pytest.CaptureFixture[str]) -> None:
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/how-to/library.md").read_text(), flags=re.DOTALL)
    exec(code, {})
    losses = [float(number) for number in re.findall(r"\d+\.\d+", capsys.readouterr().out)]
    assert losses[2] < 0.3 * losses[0]  # after the two steps that it was trained for


def test_the_citation_is_one() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= set(citation)
    import metaopt_core

    assert str(citation["version"]) == metaopt_core.__version__


def test_hooks_and_workflow_call_what_is_there() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert {hook["language"] for repository in hooks["repos"] for hook in repository["hooks"]} == {"system"}
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    runs = [step["run"] for step in workflow["jobs"]["run"]["steps"] if "run" in step]
    assert runs == [".ci/run"]
    assert (ROOT / ".ci/run").stat().st_mode & 0o111

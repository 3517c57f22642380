"""Pages that are generated when the documentation is built, so that they can't get out of date.

reference/spec.md and the table of algorithms come from the spec's models, reference/command-line.md from the commands,
reference/python/ from the sources of the packages, and the pages of the project from the files at the top of the repository.
mkdocs calls the functions `on_…`.
"""

import re
from pathlib import Path

import command_line
import python_reference
import spec_reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent.parent
PROJECT = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages of the packages to the navigation, below `Python`."""
    assert config.nav is not None
    [reference] = [entry["Reference"] for entry in config.nav if "Reference" in entry]
    for entry in reference:
        if "Python" in entry:
            entry["Python"] = [
                {"Overview": entry["Python"]},
                *({name: page} for name, page in python_reference.pages(ROOT).items()),
            ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    made = {"reference/spec.md": spec_reference.page(), "reference/command-line.md": command_line.page()}
    made |= python_reference.contents(ROOT)
    made |= {name.lower(): in_docs((ROOT / name).read_text()) for name in PROJECT}
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    return (
        markdown.replace("{{ presets }}", spec_reference.presets()) if page.file.src_uri == "reference/algorithms.md" else markdown
    )


def in_docs(text: str) -> str:
    """A page from the top of the repository, with its links adapted to docs/."""
    return re.sub(r"\]\(([A-Z]+\.md)", lambda match: f"]({match[1].lower()}", text.replace("](docs/", "]("))

"""The reference of the library: a page for each package of metaopt_core, read from the sources without importing them."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "metaopt_core"


def pages(root: Path) -> dict[str, str]:
    """Title → page of each package."""
    return {f"{PACKAGE}.{name}": f"reference/python/{name}.md" for name in _packages(root / PACKAGE)}


def contents(root: Path) -> dict[str, str]:
    """Page → its text."""
    package = root / PACKAGE
    made = {"reference/python.md": _overview(package)}
    for name, folder in _packages(package).items():
        modules = "\n".join(f"::: {module}\n" for module in _modules(root, folder))
        made[f"reference/python/{name}.md"] = f"# {PACKAGE}.{name}\n\n{modules}"
    return made


def _packages(package: Path) -> dict[str, Path]:
    return {path.parent.name: path.parent for path in sorted(package.glob("*/__init__.py"))}


def _modules(root: Path, folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if path.name == "__init__.py":
            parts = parts[:-1]
        if not any(part.startswith("_") for part in parts) and _says_something(path):
            yield ".".join(parts)


def _says_something(path: Path) -> bool:
    return bool(path.read_text().strip())


def _overview(package: Path) -> str:
    packages = {f"[`{PACKAGE}.{name}`](python/{name}.md)": _first_line(folder) for name, folder in _packages(package).items()}
    rows = "\n".join(f"| {link} | {about} |" for link, about in packages.items())
    return f"""# metaopt_core from Python

[Use the library from Python](../how-to/library.md) has an example. What `metaopt_core` itself exports is public and
changes only with a line in the [changelog](../changelog.md). The packages below it may change with any version.

::: {PACKAGE}

## Packages

| | |
|---|---|
{rows}
"""


def _first_line(folder: Path) -> str:
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    return docstring.split("\n\n")[0].replace("\n", " ").replace("|", "&#124;")

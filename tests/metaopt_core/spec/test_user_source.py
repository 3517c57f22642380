"""What the source of a custom network shows to be wrong, without running it, and which files it is."""

from pathlib import Path

import pytest

from metaopt_core.errors import UserError
from metaopt_core.spec import user_source

FILES = ["own_a/__init__.py", "own_a/blocks.py", "own_a/nets.py", "own_b.py"]
SOURCE = """import torch
from torch.nn import Identity
from elsewhere import *

raise RuntimeError("nobody runs this")

class Net(torch.nn.Module):
    def __init__(self, outputs, depth, width=8, *, input_shape):
        ...

class Any(torch.nn.Module):
    def __init__(self, **options):
        ...

class Inherits(Net):
    pass
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shown_nets.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def check(path: str, *arguments: str) -> None:
    user_source.check_class(path, arguments, ("outputs", "input_shape"))


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("arguments", [("depth",), ("depth", "width")])
def test_arguments_that_a_class_takes_pass(arguments: tuple[str, ...]) -> None:
    check("shown_nets:Net", *arguments)


@pytest.mark.usefixtures("folder")
def test_what_the_source_does_not_show_is_left_to_the_run() -> None:
    check("shown_nets:Any", "whatever")
    check("shown_nets:Inherits", "whatever")
    check("shown_nets:Identity", "whatever")
    check("shown_nets:Missing", "whatever")  # `import *` may bring it


def test_a_class_that_is_not_there_is_named_beside_those_that_are(folder: Path) -> None:
    (folder / "shown_nets.py").write_text(SOURCE.replace("from elsewhere import *", ""))
    with pytest.raises(UserError, match=r"^train\.model\.path: shown_nets has no Nett: .*; its classes are Net, Any, Inherits$"):
        check("shown_nets:Nett")


@pytest.mark.usefixtures("folder")
def test_arguments_that_do_not_fit_are_named() -> None:
    with pytest.raises(UserError, match=r"^train\.model\.arguments\.deep: .* no such argument: expected one of depth, width$"):
        check("shown_nets:Net", "depth", "deep")
    with pytest.raises(UserError, match=r"^train\.model\.arguments\.depth: missing, and shown_nets:Net needs it"):
        check("shown_nets:Net")


# --- which files it is ---


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as that of a pipelines file, with the package `own_a` and the module `own_b`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_a").mkdir()
    (tmp_path / "own_a/__init__.py").write_text("")
    (tmp_path / "own_a/nets.py").write_text("import torch\nimport own_b\nfrom .blocks import Block\n")
    (tmp_path / "own_a/blocks.py").write_text("class Block: ...\n")
    (tmp_path / "own_b.py").write_text("")
    return tmp_path


def test_files_that_are_links_count_by_what_they_lead_to(package: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    shared = tmp_path_factory.mktemp("shared")
    for name in ("own_a/blocks.py", "own_b.py"):
        target = shared / name.replace("/", "_")
        (package / name).rename(target)
        (package / name).symlink_to(target)
    found = user_source.sources("own_a.nets:Net")
    assert list(found) == FILES
    (shared / "own_b.py").write_text("changed = True")
    assert user_source.sources("own_a.nets:Net") == found
    assert found["own_b.py"].read_text() == "changed = True"


def test_package_that_is_a_link(package: Path) -> None:
    (package / "own_a").rename(package / "elsewhere")
    (package / "own_a").symlink_to("elsewhere")
    assert list(user_source.sources("own_a.nets:Net")) == FILES


@pytest.mark.parametrize("text", ["(" * 5000, "-" * 200_000 + "1", "x" + ".a" * 100_000, "\x00", "a = = 1"])
def test_file_that_is_no_python_is_named(package: Path, text: str) -> None:
    (package / "own_b.py").write_text(text)
    with pytest.raises(UserError, match=r"own_b.py(:1)?: not valid Python: "):
        user_source.sources("own_a.nets:Net")


def test_file_that_may_not_be_read_is_named(package: Path) -> None:
    (package / "own_b.py").unlink()
    (package / "own_b.py").symlink_to("/proc/self/mem")  # a file by all signs, and reading it fails, also for root
    with pytest.raises(UserError, match=r"own_b.py: can't be read \(Input/output error\)"):
        user_source.sources("own_a.nets:Net")

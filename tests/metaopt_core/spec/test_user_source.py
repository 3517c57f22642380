"""What the source of a custom network shows to be wrong, without running it."""

from pathlib import Path

import pytest

from metaopt_core.errors import UserError
from metaopt_core.spec import user_source

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
    monkeypatch.setenv(user_source.VARIABLE, str(tmp_path))
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

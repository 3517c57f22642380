"""The one folder that holds all state: outputs, checkpoints, downloads, MLflow's and Prefect's data. Without it all is gone."""

import os
from dataclasses import dataclass
from pathlib import Path

from metaopt_core.errors import UserError
from metaopt_core.spec.document import shown
from metaopt_core.spec.paths import expanded, real

VARIABLE = "METAOPT_HOME"
TRACES = "METAOPT_TRACES"
_FOLDER = ".metaopt"
_LONGEST = 200  # characters of a path in messages


@dataclass(frozen=True)
class Home:
    """Where everything lies below one root."""

    root: Path

    @classmethod
    def beside(cls, pipelines_file: Path) -> "Home":
        """The folder that METAOPT_HOME names, else `.metaopt/` beside the pipelines file, or around it (the file of a sweep).

        Raises UserError where there is no such folder and none can be made.
        """
        named = os.environ.get(VARIABLE)
        if not named and (around := [path for path in real(pipelines_file).parents if path.name == _FOLDER]):
            return cls(around[0])
        where = f"{VARIABLE}={named}" if named else str(pipelines_file.parent / _FOLDER)
        try:
            root = real(expanded(named) if named else pipelines_file.parent / _FOLDER)
            if _exists(root) and not root.is_dir():
                raise UserError("a file, and expected a folder")
        except UserError as error:
            raise UserError(f"{shown(where, _LONGEST)}: {error}") from None
        return cls(root)

    @classmethod
    def current(cls) -> "Home":
        """The folder of this process: the command line and `metaopt serve` set METAOPT_HOME for the flows that they start."""
        return cls.beside(Path.cwd() / "pipelines.yaml")

    def make(self) -> None:
        """Make the folder, readable by its owner alone: data, models and logs may be confidential.

        One that is there keeps its mode: `chmod` is how to share it on purpose.
        """
        if not self.root.exists():
            self.root.parent.mkdir(parents=True, exist_ok=True)
            self.root.mkdir(mode=0o700, exist_ok=True)

    @property
    def outputs(self) -> Path:
        return self.root / "outputs"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def downloads(self) -> Path:
        return self.root / "downloads"

    @property
    def sweeps(self) -> Path:
        return self.root / "sweeps"

    @property
    def locks(self) -> Path:
        return self.root / "locks"

    @property
    def compiled(self) -> Path:
        return self.root / "compiled"

    @property
    def mlflow(self) -> Path:
        return self.root / "mlflow"

    @property
    def prefect(self) -> Path:
        return self.root / "prefect"

    @property
    def traces(self) -> Path | None:
        """Where profiles of training go, where they are asked for: METAOPT_TRACES names the folder."""
        named = os.environ.get(TRACES)
        return Path(named) if named else None


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UserError(f"{error.strerror}, and expected a folder, or a place for one") from None
    return True

"""The one folder that holds all state: outputs, checkpoints, downloads, MLflow's and Prefect's data. Delete it to remove them."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from metaopt_core.errors import UserError
from metaopt_core.spec.document import shown
from metaopt_core.spec.paths import expanded, real

VARIABLE = "METAOPT_HOME"
FOLDER = ".metaopt"
_LONGEST = 200  # characters of a path in messages
_MODE_IS_CHOSEN = ".mode-is-chosen"  # a file that says so of the folder around it
_BY_UMASK = {0o755, 0o775}


@dataclass(frozen=True)
class Home:
    """The places of everything below one root."""

    root: Path

    @classmethod
    def beside(cls, pipelines_file: Path, named: str | None = None) -> "Home":
        """`.metaopt/` beside a pipelines file, or around it (the file of a sweep).

        named: another folder, given by METAOPT_HOME. Raises UserError if there is no such folder and it can't be made.
        """
        if not named and (around := [path for path in real(pipelines_file).parents if path.name == FOLDER]):
            return cls(around[0])
        where = f"{VARIABLE}={named}" if named else str(pipelines_file.parent / FOLDER)
        try:
            root = real(expanded(named) if named else pipelines_file.parent / FOLDER)
            if _exists(root) and not root.is_dir():
                raise UserError("a file, and expected a folder")
        except UserError as error:
            raise UserError(f"{shown(where, _LONGEST)}: {error}") from None
        return cls(root)

    def make(self) -> None:
        """Make the folder, readable by its owner alone: data, models and logs may be confidential.

        An existing folder keeps its mode, so that `chmod` can share it on purpose; but see `close`.
        """
        if not self.root.exists():
            self.root.parent.mkdir(parents=True, exist_ok=True)
            self.root.mkdir(mode=0o700, exist_ok=True)
            (self.root / _MODE_IS_CHOSEN).touch()

    def close(self) -> int | None:
        """Take away the access of others that nobody chose to give: earlier versions made the folder with the mode that the umask
        gives any folder. Done once; a mode that is given afterwards stays. Returns the mode before, if it was changed.
        """
        status, chosen = self.root.stat(), self.root / _MODE_IS_CHOSEN
        if chosen.exists() or status.st_uid != os.geteuid():
            return None
        mode = stat.S_IMODE(status.st_mode)
        close = mode in _BY_UMASK and self.outputs.exists() and self.prefect.exists()  # else it was made by the user
        if close:
            self.root.chmod(0o700)
        chosen.touch()
        return mode if close else None

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
    def traces(self) -> Path:
        return self.root / "traces"


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UserError(f"{error.strerror}, and expected a folder, or a place for one") from None
    return True

"""`metaopt data check` and `metaopt init`: what can be known of data before anything is trained."""

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from flows import complete, console, environment, pipelines_file, typer_commands
from metaopt_core.errors import UserError

data = typer.Typer(cls=typer_commands.Group, help="Look at the data of a pipeline.")

OF_INIT = (
    "[bold]Examples[/bold]\n\n"
    "[cyan]metaopt init measured.csv[/cyan]  guesses, and says what\n\n"
    "[cyan]metaopt init --pictures photos/[/cyan]  folders of pictures, a class each; or an archive of them\n\n"
    "[cyan]metaopt init measured.csv --task assay --target activity -f assays.yaml[/cyan]\n\n"
    "Then: [cyan]metaopt data check NAME[/cyan] and [cyan]metaopt run NAME[/cyan]."
)

FileOption = Annotated[
    Path | None, typer.Option("--file", "-f", metavar="FILE", help="The pipelines file.", show_default=str(pipelines_file.DEFAULT))
]


@data.callback()
def of_data() -> None:
    """Makes `check` a command of its own, where a single one would stand for the group."""


@data.command(
    cls=typer_commands.Command,
    epilog="[bold]Examples[/bold]\n\n"
    "[cyan]metaopt data check assays[/cyan]\n\n"
    "Nothing is trained, and no stage's output is made. Exit status: 0, or 2 if a run would stop at the data.",
)
def check(
    context: typer.Context,
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", autocompletion=complete.pipelines, help="A pipeline of the file.")],
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Another value for this time. Repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output, for programs.")] = False,
    file: FileOption = None,
) -> None:
    """Read the data of a pipeline, and say what is in them and what may be wrong."""
    path = file or context.find_root().obj or pipelines_file.DEFAULT
    spec = pipelines_file.one(path, pipeline, sets)
    home = environment.home_of(path)
    from flows.report import console as wide
    from metaopt_core.distributions.contract import load, materialize
    from metaopt_core.reporting import data_check, figures, terminal

    home.make()
    with tempfile.TemporaryDirectory(dir=home.root) as name:
        folder = Path(name)
        materialize(spec.generate, spec.data_seed, home.downloads, folder)
        distribution, _ = load(folder, spec.seed)
        checked = data_check.check(spec, distribution)
        figures.save(distribution.overview(), folder / "tasks.png")
        figure = home.root / f"check-{spec.name}.png"
        shutil.move(folder / "tasks.png", figure)
    if as_json:
        console.print_json(checked.as_json() | {"figure": str(figure)})
    else:
        for about, fact in checked.findings.facts.items():
            print(f"{about}: {fact}")
        print()
        for table in filter(None, (data_check.splits(checked), data_check.large_enough(checked))):
            terminal.show(wide(), table)
        for warning in checked.findings.warnings:
            print(f"warning: {warning}")
        print(f"figure  {figure}")
    if checked.refusals:
        raise UserError("\n".join(checked.refusals))


def init(
    context: typer.Context,
    table: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="A CSV or Parquet file.", show_default=False)] = None,
    task: Annotated[
        list[str] | None, typer.Option("--task", metavar="COLUMN", help="The column that names a row's task. Repeatable.")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option("--target", metavar="COLUMN", help="The column to predict. Repeatable.")
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option("--pictures", metavar="FOLDER", help="Folders of pictures, or an archive of them, instead of a table."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="What to call the pipeline.")] = None,
    file: FileOption = None,
) -> None:
    """Write a pipelines file for a table, or for pictures: one pipeline with comments, ready to run."""
    if (table is None) == (pictures is None) or (pictures is not None and (task or target)):
        raise UserError("metaopt init: expected a table, with --task and --target if need be, or --pictures FOLDER")
    place = table or pictures
    assert place is not None
    path = file or context.obj or pipelines_file.DEFAULT
    if path.exists():
        command = f"metaopt init {'--pictures ' if pictures else ''}{place}"
        raise UserError(f"{path} is there already: expected a new file, as in {command} -f {place.stem.split('.')[0]}.yaml")
    if pictures is not None:
        from metaopt_core.distributions.pictures import guessing as of_pictures

        guess = of_pictures.guess(pictures, name)
        called, said, text = guess.name, guess.said, of_pictures.pipelines_text(guess, pictures, path)
    else:
        from metaopt_core.distributions.table import guessing

        of_table = guessing.guess(place, tuple(task or ()), tuple(target or ()), name)
        called, said, text = of_table.name, of_table.said, guessing.pipelines_text(of_table, place, path)
    path.write_text(text, encoding="utf-8")
    for sentence in said:
        console.say(sentence)
    console.say(f"{path}: pipeline {called}")
    option = "" if path == pipelines_file.DEFAULT else f" -f {path}"
    console.say(f"next: metaopt data check {called}{option}, then metaopt run {called}{option}")

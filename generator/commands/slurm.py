"""`stopdown slurm`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from generator.commands.options import Overrides, RecipeFile
from generator.commands.remote_options import Endpoint, Region
from generator.farm.slurm import Scripts, SlurmOptions, parse_array, program, submit, write_scripts
from generator.recipe.estimate import estimate
from generator.recipe.load import load_recipe
from generator.remotes.base import RemoteOptions, open_remote
from generator.versions.commit import check_message


def command(
    recipe: RecipeFile,
    array: Annotated[
        str, typer.Option(metavar="N[%M]", help="Number of shards; with %M, at most M of them at once.", show_default=False)
    ],
    out: Annotated[
        str | None,
        typer.Option(metavar="FOLDER|s3://BUCKET/PREFIX", help="The dataset's place; datasets/NAME if not given."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Render processes of each task.")] = 1,
    threads: Annotated[int, typer.Option(help="Threads of each render process.")] = 1,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="LIMIT",
            help="Time limit of a task in Slurm's format: 90 (minutes), 12:00:00; the site's default if not given.",
        ),
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory of a task, such as 8G; the site's default if not given.")
    ] = None,
    partition: Annotated[str | None, typer.Option(help="Slurm partition; the site's default if not given.")] = None,
    account: Annotated[str | None, typer.Option(help="Slurm account; the user's default if not given.")] = None,
    after: Annotated[
        str,
        typer.Option(
            metavar="any|ok", help="Run the last job when all shards have ended (any), or only if all succeeded (ok)."
        ),
    ] = "any",
    scripts: Annotated[Path | None, typer.Option(help="Folder for scripts and logs; slurm/NAME if not given.")] = None,
    message: Annotated[str, typer.Option("--message", "-m", help="A message that describes the version.")] = "",
    send: Annotated[
        bool, typer.Option("--submit", help="Submit the jobs with sbatch, instead of printing the commands.")
    ] = False,
    endpoint: Endpoint = None,
    region: Region = None,
    overrides: Overrides = None,
) -> None:
    """Write the Slurm scripts of a build: a job array of shards, and a job after it that commits the version.

    Every machine must see the recipe, this installation and (if it is a folder) the dataset at the same paths.
    """
    count, at_once = parse_array(array)
    if message:
        check_message(message)
    loaded = load_recipe(recipe, overrides or ())
    place = out if out is not None else f"datasets/{loaded.name}"
    place = place if place.startswith("s3://") else str(Path(place).absolute())
    reached = RemoteOptions(endpoint=endpoint, region=region)
    open_remote(place, None if reached == RemoteOptions() else reached)  # says what is wrong with the place, before any job
    options = SlurmOptions(
        count=count,
        at_once=at_once,
        workers=workers,
        threads=threads,
        time=time,
        memory=memory,
        partition=partition,
        account=account,
        after=after,
    )
    build = [*program(), "build", str(recipe.absolute()), "--out", place]
    for option, value in (("--endpoint", endpoint), ("--region", region), *(("--set", words) for words in overrides or ())):
        build += [option, value] if value is not None else []
    folder = scripts if scripts is not None else Path("slurm") / loaded.name
    written = write_scripts(loaded, folder, options, build=build, finish=["--message", message] if message else [])
    _tell(written, estimate(loaded).clips, count)
    if send:
        print("submitted: shards {}, finish {}".format(*submit(written)), f"next: stopdown monitor {place}", sep="\n")
    else:
        print("submit them with:", *written.commands, sep="\n  ")


def _tell(written: Scripts, clips: int, count: int) -> None:
    print(f"{written.shards} and {written.finish}: {clips} clips in {count} shards")
    if count > clips:
        print(f"there are more shards than clips: {count - clips} or more of them will end at once")

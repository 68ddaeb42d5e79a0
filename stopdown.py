"""The command `stopdown`: mounts generator's and trainer's commands, importing each only when it is called."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from typing import Annotated, Any

PACKAGES = ("scenes", "generator", "trainer")
OWN_LINE = '__distribution__ = "stopdown"'  # in the __init__.py of each


def foreign_package() -> str | None:
    """Return one line about a package of this product that is another distribution's, or None where all are its own.

    The names are common ones: PyPI has a `trainer` too, and installing it overwrites this one without a word.
    """
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        path = spec.origin if spec is not None else None
        if path is not None and OWN_LINE in Path(path).read_text("utf-8", errors="replace"):
            continue
        owners = {owner for owner in importlib.metadata.packages_distributions().get(name, ()) if owner != "stopdown"}
        found = f"is another program's ({path})" if spec is not None else "is missing"
        remove = f"pip uninstall {' '.join(sorted(owners))}, then " if owners else ""
        return (
            f"stopdown: the package '{name}' {found}; {remove}pip install --force-reinstall --no-deps stopdown, best in an "
            "environment of its own (pipx install, uv tool install)"
        )
    return None


if (_foreign := foreign_package()) is not None:
    print(_foreign, file=sys.stderr)
    raise SystemExit(2)

import typer  # noqa: E402  # whose the packages are is checked before anything of theirs is imported

from generator.console.command_line import command_line, run_parsed, told  # noqa: E402
from generator.processes.children import guard_children  # noqa: E402
from generator.processes.processors import share_processors  # noqa: E402

# name: (module with a function `command`, or an `app` of several, one-line help)
COMMANDS: dict[str, tuple[str, str]] = {
    "plan": ("generator.commands.plan", "Show the plan of a recipe, without rendering."),
    "build": ("generator.commands.build", "Render, encode and measure a recipe's clips into a dataset."),
    "slurm": ("generator.commands.slurm", "Write or submit the Slurm jobs of a build."),
    "monitor": ("trainer.commands.monitor", "Watch a build, a run or a training in progress."),
    "verify": ("generator.commands.verify", "Verify a dataset: every hash, every label, every probe."),
    "gallery": ("generator.commands.gallery", "Write an HTML gallery and a contact sheet of a dataset."),
    "log": ("generator.commands.log", "List the versions of a dataset, newest first."),
    "show": ("generator.commands.show", "Show one version: what is in it and what made it."),
    "status": ("generator.commands.status", "Say whether the working folder differs from its version."),
    "commit": ("generator.commands.commit", "Make the working folder the next version."),
    "tag": ("generator.commands.tag", "Name a version, or list the names."),
    "diff": ("generator.commands.diff", "Compare two versions: clips added, removed and changed, label by label."),
    "restore": ("generator.commands.restore", "Make the working folder exactly a version."),
    "clone": ("generator.commands.clone", "Copy a dataset with its history from a folder or S3-compatible storage."),
    "push": ("generator.commands.push", "Send versions to a folder or S3-compatible storage."),
    "pull": ("generator.commands.pull", "Fetch versions from a folder or S3-compatible storage."),
    "merge": ("generator.commands.merge", "Join another dataset's clips to this one's."),
    "query": ("generator.commands.query", "Select clips by their labels, in SQL."),
    "gc": ("generator.commands.gc", "Remove stored objects that no version uses."),
    "export": ("generator.commands.export", "Export a dataset in a layout that trainers read."),
    "run": ("trainer.commands.run", "Render, verify, train, generate, measure and report, in one resumable command."),
    "runs": ("trainer.commands.runs", "List runs side by side."),
    "train": ("trainer.commands.train", "Train a control adapter on a dataset version."),
    "generate": ("trainer.commands.generate", "Generate videos and sweeps under camera control."),
    "play": ("trainer.commands.play", "Try an adapter in a local page: sliders in units, the video, the probes' reading."),
    "evaluate": ("trainer.commands.evaluate", "Measure generated videos with the probes that verified the data."),
    "report": ("trainer.commands.report", "Write an evaluation, a training and a dataset as one HTML page."),
    "adapter": ("trainer.commands.adapter", "Describe, convert or merge a control adapter."),
    "scene": ("generator.commands.scene", "Save one clip's scene as a .blend, or render its frames."),
    "mark": ("generator.commands.mark", "Annotate a custom .blend, so that recipes can use it."),
    "schema": ("generator.commands.schema", "Print the JSON Schema of recipes, for editors."),
}


_HELP = {"help_option_names": ["-h", "--help"]}
_TAKE_ALL = {"ignore_unknown_options": True, "allow_extra_args": True}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=_HELP,
    help="Teach a text-to-video diffusion model a physical camera control from Blender-rendered primitives.",
)


def _version(asked: bool) -> None:
    if asked:
        print(f"stopdown {importlib.metadata.version('stopdown')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


def _mount(name: str, module: str, words: str) -> None:
    """Add a command that hands its words, `--help` among them, to the module that it imports when it runs."""

    @app.command(name, help=words, add_help_option=False, context_settings={**_HELP, **_TAKE_ALL})
    @told
    def forward(ctx: typer.Context) -> None:
        found = importlib.import_module(module)
        group = getattr(found, "app", None)  # a command with commands of its own
        if group is None:
            group = typer.Typer(add_completion=False, pretty_exceptions_enable=False, context_settings=_HELP)
            group.command()(found.command)
        command = typer.main.get_command(group)
        _prepare(command)
        run_parsed(command, ctx.args, f"stopdown {name}")


def _prepare(command: Any) -> None:
    """Keep square brackets in the help of a command, its options and its own commands: rich would take [train] for a style.

    And keep typer from ending them in its own words, or in none.
    """
    from rich.markup import escape

    for part in (command, *command.params):
        if getattr(part, "help", None):
            part.help = escape(part.help)
    if command.callback is not None:
        command.callback = told(command.callback)
    for below in getattr(command, "commands", {}).values():
        _prepare(below)


for _name, (_module, _words) in COMMANDS.items():
    _mount(_name, _module, _words)


def main() -> None:
    """Run the command line; what a person, a disk or a terminal can cause ends as one line on stderr and an exit code."""
    command_line(_start)


def _start() -> None:
    guard_children()
    share_processors()  # before a command loads numpy, torch or Blender
    run_parsed(typer.main.get_command(app), None, "stopdown")


if __name__ == "__main__":
    main()

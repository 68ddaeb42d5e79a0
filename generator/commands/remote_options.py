"""Options and output that clone, push and pull share."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from generator.commands.version_options import print_json
from generator.console.terminal import Console
from generator.remotes.base import Remote, RemoteOptions, open_remote
from generator.versions.sync.push import TransferReport

RemotePlace = Annotated[
    str,
    typer.Argument(
        metavar="REMOTE",
        help="Another folder, or s3://BUCKET/PREFIX; credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
        show_default=False,
    ),
]
Endpoint = Annotated[
    str | None,
    typer.Option(
        "--endpoint", metavar="URL", help="URL of the S3-compatible server; AWS_ENDPOINT_URL, or else AWS, if not given."
    ),
]
Region = Annotated[
    str | None, typer.Option("--region", help="Region of the storage; AWS_REGION, or else us-east-1, if not given.")
]
Anonymous = Annotated[bool, typer.Option("--anonymous", help="Send requests without credentials, to a public bucket.")]
NoRestore = Annotated[bool, typer.Option("--no-restore", help="Fetch the history only and leave the working folder alone.")]


def remote_at(where: str, endpoint: str | None, region: str | None, anonymous: bool) -> Remote:
    """Return the remote that options name; raises InputError."""
    return open_remote(where, RemoteOptions(endpoint=endpoint, region=region, anonymous=anonymous))


def print_report(report: TransferReport, words: str, *, json: bool) -> None:
    """Print what a transfer moved; `words` say what was done, as in 'pushed to NAME'."""
    if json:
        print_json(asdict(report))
        return
    console = Console()
    if not report.versions and not report.moves:
        console.print(f"{words}: nothing to do", markup=False, soft_wrap=True)
        return
    count = f"{len(report.versions)} {'version' if len(report.versions) == 1 else 'versions'}"
    moved = f"{report.objects} objects, {report.size_bytes / 1e6:.1f} MB"
    console.print(f"{words}: {count}, {moved}", markup=False, soft_wrap=True)
    for move in report.moves:
        before = "new" if move.before is None else move.before[:12]
        lost = "" if move.relation in ("forward", "same") else f" (forced; {before} may now be in no history)"
        console.print(f"  {move.name}: {before} -> {move.after[:12]}{lost}", markup=False, soft_wrap=True)

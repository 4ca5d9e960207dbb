"""The table of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from onnxnas import __version__
from onnxnas.cli import host, later, model, run

app = typer.Typer(
    name="onnxnas",
    help="Give it an ONNX model and some data; it returns smaller, faster ONNX models, measured on this CPU.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"onnxnas {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options without a command."""


for command in (
    model.export,
    model.inspect,
    model.check,
    model.extract,
    model.quantize,
    run.optimize,
    run.train,
    run.search,
    run.finalise,
    run.resume,
    run.report,
    host.bench,
    host.verify,
    host.doctor,
):
    app.command()(command)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(later.tune)

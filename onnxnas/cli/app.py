"""The table of commands."""

from __future__ import annotations

import typer

from onnxnas.cli import host, later, model, run

app = typer.Typer(
    name="onnxnas",
    help="Give it an ONNX model and some data; it returns smaller, faster ONNX models, measured on this CPU.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command in (
    model.export,
    model.inspect,
    model.check,
    model.extract,
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
for missing in (later.quantize, later.tune):
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(missing)

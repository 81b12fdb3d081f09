"""`python -m projection_service`, and `… rebuild`."""

import asyncio
import signal
from typing import Annotated

import typer

from projection_service.app import ProjectionSettings, rebuild_views, run
from projection_service.rebuild.display import display
from shared.errors import LedgerError
from shared.platform.server import loop_factory, run_to_its_end, service_help
from shared.platform.settings import read_settings

NAME = "projection-service"
INTERRUPTED = 130
"""The exit status after Ctrl-C or SIGTERM."""

HELP = """Build views anew beside those in use, and put them in their place, while the service goes on.

Set by the same environment variables as the service. New tables are built from the ledger's feed, in a file or \
schema beside the one in use. They are checked, and compared with those in use at the same position; what differs is \
told. Then they take their place, in one transaction. Queries are answered all the time.

A view that PROJECTION_VIEWS or this program has not had until now, or whose tables are in an earlier form than this \
program's, is built in the same way. Let the service run as it was until its views become others: then it stops by \
itself, and the new one can start.

It can be stopped at any moment, by Ctrl-C or by force: the same command goes on from there.

Exit status: 0 when the new views are in use, 1 when they are not, for the reason that is given, 2 when a \
setting or an option is wrong, 130 when it was interrupted."""

command_line = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@command_line.callback(
    invoke_without_command=True, help=service_help("Keep views of the ledger and answer queries.", ProjectionSettings)
)
def service(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        run_to_its_end(NAME, ProjectionSettings, run)


@command_line.command(help=HELP)
def rebuild(
    views: Annotated[
        str, typer.Option(help="Those to build, separated by commas; all that PROJECTION_VIEWS has, when absent.")
    ] = "",
    anew: Annotated[
        bool,
        typer.Option(
            "--anew",
            help="Begin at position 0, and not where an interrupted rebuild, of an earlier version maybe, has stopped.",
        ),
    ] = False,
) -> None:
    settings = read_settings(ProjectionSettings)
    try:
        asked = settings.views_named(views) if views else settings.views
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--views") from None
    # Whatever a shell starts in its background ignores it, and would ignore SIGTERM with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with display() as report, asyncio.Runner(loop_factory=loop_factory()) as runner:
        work = rebuild_views(settings, [view.name for view in asked], anew, report)
        runner.get_loop().add_signal_handler(signal.SIGTERM, signal.raise_signal, signal.SIGINT)
        try:
            runner.run(work)
        except LedgerError as error:
            report.say(f"cannot go on: {error}")
            raise SystemExit(1) from None
        except KeyboardInterrupt:
            report.say("interrupted: the views in use are whole. The same command goes on from here.")
            raise SystemExit(INTERRUPTED) from None


def main() -> None:
    command_line(prog_name=NAME)


if __name__ == "__main__":
    main()

"""The command `text-embeddings-router`: settings, logs, model, server; and how a failed start is told."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence

from .command_line import Shown
from .errors import SettingsError, StartError, UnsupportedError
from .settings import Settings
from .telemetry import logging as logs

logger = logging.getLogger(__name__)

NOT_YET = {
    "--otlp-endpoint": "traces can't be exported yet",
}
"""Options whose work is still to come, and why giving one ends the start. Delete a row when it works."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; argv without the program's name (default: the process's). Returns the exit status."""
    try:
        settings = Settings.parse(sys.argv[1:] if argv is None else argv, os.environ)
        if settings.explain:
            return explain(settings)
        refuse_not_yet(settings)
        logs.configure(
            sys.stdout,
            as_json=settings.json_output,
            directives=settings.log_level,
            color=settings.color,
            spans=not settings.disable_spans,
        )
        logger.info("Starting with %s", settings.redacted())
        for warning in settings.warnings():
            logger.warning("%s", warning)
        run(settings)
    except Shown as shown:
        print(shown)
    except SettingsError as error:
        print(f"error: {error}\n\nFor more information, try '--help'.", file=sys.stderr)
        return 2
    except StartError as error:
        print("\n".join(report(error)), file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the server took over the signals
        return 130
    return 0


def run(settings: Settings) -> None:
    """Load the model and serve it until a signal says stop."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads would take the engine's cores
    from .inference import Model

    model = Model.load(settings)
    from .server.http import Sockets, serve  # while the model is compiled, which needs no interpreter

    sockets = Sockets.bind(settings)
    model.warm_up(settings)
    serve({settings.served_name: model}, settings, sockets)


def explain(settings: Settings) -> int:
    """Print how the model would be served, or why not. Returns the exit status."""
    from .explain import Problems, explain

    problems = Problems()
    with problems.step():
        refuse_not_yet(settings)
    explanation = explain(settings, problems)
    print(explanation.json() if settings.json_output else explanation.text())
    return 0 if explanation.served else 1


def refuse_not_yet(settings: Settings) -> None:
    """Raises UnsupportedError if an option was given that `NOT_YET` names."""
    for option, reason in NOT_YET.items():
        flag, _, value = option.partition(" ")
        name = flag.removeprefix("--").replace("-", "_")
        if name in settings.given and value in ("", str(getattr(settings, name))):
            raise UnsupportedError(f"`{option}`: {reason}", hint="start without it")


def report(error: StartError) -> Iterator[str]:
    """The lines that tell why the start failed: the error, what caused it, and the way out."""
    yield f"Error: {_message(error)}"
    causes = list(_causes(error))
    if causes:
        yield "\nCaused by:"
    for number, cause in enumerate(causes):
        yield f"    {f'{number}: ' if len(causes) > 1 else ''}{_message(cause)}"
    hints = [link.hint for link in (error, *causes) if isinstance(link, StartError) and link.hint]
    if hints:
        yield f"\nhint: {hints[-1]}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    while (cause := error.__cause__) is not None:
        yield cause
        error = cause


def _message(error: BaseException) -> str:
    """The message without the hint; the name of the class for an error that has none."""
    return str(error.args[0] if isinstance(error, StartError) else error) or type(error).__name__

"""Renders a chat template, in a process of its own: a template comes with a model, and may be anybody's program.

Started as a script by `chat_template`, with the request as JSON on its standard input and the answer on its standard
output. Jinja's sandbox keeps the template from reaching the interpreter, and limits of the system end one that computes
without end or takes all memory, which no sandbox does. The environment is that of Transformers (`chat_template_utils`).
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

SECONDS = 2
MEMORY = 1 << 30
MOST_CHARACTERS = 100_000
"""Of a rendered template."""


def limit() -> None:
    """Limits of this process's time and memory, on systems that know them."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def render(source: str, runs: list[dict[str, Any]]) -> list[str]:
    """The text of each run: a dictionary of the template's variables. Raises what the template raises."""
    from jinja2.exceptions import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    template = environment.from_string(source)
    texts = [template.render(**run) for run in runs]
    if any(len(text) > MOST_CHARACTERS for text in texts):
        raise ValueError(f"it gives more than {MOST_CHARACTERS} characters")
    return texts


def main() -> None:
    limit()
    request = json.load(sys.stdin)
    sys.path[:] = request["paths"]
    try:
        answer: dict[str, Any] = {"texts": render(request["source"], request["runs"])}
    except ImportError as problem:
        answer = {"missing": str(problem)}
    except Exception as problem:  # the template's own, of any kind
        answer = {"error": f"{type(problem).__name__}: {problem}"[:500]}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()

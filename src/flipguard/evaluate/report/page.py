"""The frame of every HTML page: one file, no network, a policy that lets nothing run but our own script."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from flipguard.evaluate.report import formatting
from flipguard.evaluate.report.text import clean

if TYPE_CHECKING:
    from jinja2 import Environment


def _shown(value: Any) -> Any:
    """What every expression of a template passes through before it is escaped."""
    return clean(value) if type(value) is str else value


def _asset(name: str) -> str:
    """A file of ours that is inlined."""
    return files(__package__).joinpath("templates", name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _digest(content: str) -> str:
    """The name of an inline style or script in a content security policy."""
    digest = hashlib.sha256(content.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


@lru_cache(maxsize=1)
def _environment() -> Environment:
    """Templates that escape whatever they print, and refuse a name that is not there."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("flipguard.evaluate.report", "templates"),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = _asset("page.css"), _asset("page.js")
    environment.globals.update(style=Markup(style), script=Markup(script), f=formatting)  # noqa: S704 - our own files
    environment.globals["policy"] = (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return environment


def drawing(markup: str) -> str:
    """SVG from `svg` or `scatter`, where every text is escaped already, so that a template leaves it as it is."""
    from markupsafe import Markup

    return Markup(markup)  # noqa: S704 - see above


def fill(template: str, **values: Any) -> str:
    """A page from its template."""
    return _environment().get_template(template).render(values)

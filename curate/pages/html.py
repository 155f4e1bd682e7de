"""A page that is complete in itself: template, style and script in one file that loads nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

import jinja2

from curate.pages.words import number
from curate.text.numbers import percent


def render(
    package: str,
    name: str,
    values: Mapping[str, Any],
    filters: Mapping[str, Callable[..., str]] | None = None,
) -> str:
    """Fill ``templates/<name>.html`` of a package.

    The template has ``style`` (``base.css`` of this package, then ``<name>.css``), ``script`` (``copy.js``,
    then ``<name>.js``) and the digest of each for the page's content security policy, and may use the
    templates of this package. Whatever comes from the data is escaped; a name that is not in ``values``
    is an error.

    Args:
        package: e.g. ``curate.inspect``.
        filters: besides ``n`` (a count), ``num`` (a number) and ``pct`` (a share of 1).
    """
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(lambda template: _resource(__package__, template)),
    )
    environment.filters |= {"n": _count, "num": number, "pct": percent, **(filters or {})}
    style = _resource(__package__, "base.css") + _resource(package, f"{name}.css")
    script = _resource(__package__, "copy.js") + _resource(package, f"{name}.js")
    return environment.from_string(_resource(package, f"{name}.html")).render(
        values, style=style, script=script, style_digest=_digest(style), script_digest=_digest(script)
    )


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _resource(package: str, name: str) -> str:
    return (resources.files(package) / "templates" / name).read_text(encoding="utf-8")

"""`/docs`: the OpenAPI document as a page that runs no script and loads nothing from anywhere."""

import base64
import html
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, Final

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
    "code{font:0.95em ui-monospace,monospace}h2{margin:2.5rem 0 .5rem;font-size:1.15rem}"
    "section{border-top:1px solid #8886;padding:.75rem 0}p,ul{margin:.4rem 0}b{margin-right:.5rem}"
)
_STYLE_HASH: Final = base64.b64encode(sha256(_STYLE.encode()).digest()).decode()

CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def page(document: Mapping[str, Any]) -> str:
    """Write *document* as HTML."""
    info = document["info"]
    body = "".join(_sections(document["paths"]))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{_text(info['title'])}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{_text(info['title'])} {_text(info['version'])}</h1><p>{_text(info.get('description', ''))}</p>"
        f'<p>For programs: <a href="/openapi.json">/openapi.json</a></p>{body}</body></html>'
    )


def _sections(paths: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    group = None
    for path, operations in sorted(paths.items(), key=lambda item: (_tag(item[1]), item[0])):
        if _tag(operations) != group:
            group = _tag(operations)
            yield f"<h2>{_text(group)}</h2>"
        for method, operation in operations.items():
            yield (
                f"<section><b>{_text(method.upper())}</b><code>{_text(path)}</code>"
                f"<p>{_text(operation.get('description', ''))}</p>{_parameters(operation)}{_responses(operation)}"
                "</section>"
            )


def _tag(operations: Mapping[str, Any]) -> str:
    return str(next(iter(operations.values())).get("tags", [""])[-1])


def _parameters(operation: Mapping[str, Any]) -> str:
    listed = "".join(
        f"<li><code>{_text(each['name'])}</code> ({_text(each['in'])}) {_text(each.get('description', ''))}</li>"
        for each in operation.get("parameters", [])
    )
    return f"<ul>{listed}</ul>" if listed else ""


def _responses(operation: Mapping[str, Any]) -> str:
    listed = "; ".join(
        f"<code>{_text(status)}</code> {_text(each.get('description', ''))}"
        for status, each in operation["responses"].items()
    )
    return f"<p>{listed}</p>"


def _text(text: object) -> str:
    return html.escape(str(text))

"""What the files in grafana/ ask Prometheus for."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

GRAFANA: Final = Path(__file__).parents[2] / "grafana"
DASHBOARD: Final = GRAFANA / "idlepush-dashboard.json"
RULES: Final = GRAFANA / "alerts.rules.yml"
TESTS: Final = GRAFANA / "alerts.tests.yml"

_METRIC: Final = re.compile(r"\b((?:idlepush|process)_\w+)(\{[^}]*\})?")
_MATCHER: Final = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_VARIABLES: Final = {"$__rate_interval": "1m", "$instance": ".*", "$account": ".*", "$job": "idlepush"}


@dataclass(frozen=True)
class Query:
    """One expression, and where it stands."""

    place: str
    expression: str

    @property
    def selectors(self) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
        """The metrics it names, each with its matchers: label, operator, value."""
        for metric, matchers in _METRIC.findall(self.expression):
            yield metric, _MATCHER.findall(matchers)


def panels() -> list[dict[str, Any]]:
    """The dashboard's panels."""
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def dashboard_queries() -> list[Query]:
    """What the dashboard asks, its variables filled in with everything."""
    found = []
    for panel in panels():
        for target in panel.get("targets", ()):
            expression: str = target["expr"]
            for variable, value in _VARIABLES.items():
                expression = expression.replace(variable, value)
            found.append(Query(f"{panel['title']}, {target['legendFormat']}", expression))
    return found


def rules() -> list[Query]:
    """The expressions of the alert rules, by their names."""
    text = RULES.read_text()
    found = []
    for name, block in re.findall(r"- alert: (\w+)\n(.*?)(?=\n\n|\Z)", text, re.DOTALL):
        expression = re.search(r"expr: (?:>-\n)?(.*?)\n\s+(?:for|labels):", block, re.DOTALL)
        assert expression is not None, name
        found.append(Query(name, " ".join(expression[1].split())))
    return found

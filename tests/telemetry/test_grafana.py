"""The dashboard and the rules: all they ask for exists, and every rule fires on what it is for."""

import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from idlepush.telemetry.health import Health
from idlepush.telemetry.metrics import Metrics
from tests.telemetry.grafana import GRAFANA, RULES, TESTS, Query, dashboard_queries, panels, rules
from tests.telemetry.observed import ONE_OF_EACH

QUERIES = [*dashboard_queries(), *rules()]
ADDED_BY_PROMETHEUS = {"instance", "job"}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, set[str]]]:
    """Every sample's name, with the values that each of its labels has."""
    health, registry = Health(lambda: datetime(2026, 11, 21, tzinfo=UTC)), CollectorRegistry()
    metrics = Metrics(registry, health=health)
    metrics.expect("alice", poll_interval=300)
    metrics.measure_files(tmp_path_factory.mktemp("store") / "mirror.db")
    for seen in ONE_OF_EACH.values():
        health(seen)
        metrics(seen)
    found: dict[str, dict[str, set[str]]] = {}
    for family in registry.collect():
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.place)
def test_every_metric_label_and_value_asked_for_exists(query: Query, known: dict[str, dict[str, set[str]]]) -> None:
    for metric, matchers in query.selectors:
        assert metric in known
        for label, operator, value in matchers:
            if label in ADDED_BY_PROMETHEUS:
                continue
            assert label in known[metric], f"{metric} has no label {label}"
            values = value.split("|") if operator == "=~" else [value]
            assert set(values) <= known[metric][label] | {".*"}


def test_there_is_something_to_look_at() -> None:
    assert len(dashboard_queries()) > 30
    assert len(rules()) > 10


def test_panels_have_names_of_their_own_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
    for key in ("id", "title"):
        assert len({panel[key] for panel in panels()}) == len(panels())


def test_provisioning_names_what_there_is() -> None:
    yaml = pytest.importorskip("yaml")
    [provider] = yaml.safe_load((GRAFANA / "provisioning/dashboards.yaml").read_text())["providers"]
    assert provider["type"] == "file"
    [source] = yaml.safe_load((GRAFANA / "provisioning/datasource.yaml").read_text())["datasources"]
    assert source["type"] == "prometheus"


@pytest.fixture(scope="module")
def promtool() -> str:
    """Find promtool; skip where there is none. In CI nothing may be missing unnoticed."""
    found = shutil.which("promtool")
    if found is None:
        lack = "promtool is missing: apt-get install prometheus"
        if os.environ.get("CI") == "true":
            pytest.fail(lack, pytrace=False)
        pytest.skip(lack)
    return found


def ask(*command: str) -> tuple[int, str]:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False, cwd=GRAFANA
    )
    return done.returncode, done.stdout


def test_promtool_takes_the_configuration_and_the_rules(promtool: str) -> None:
    for what, file in (("config", "prometheus.yml"), ("rules", RULES.name)):
        status, said = ask(promtool, "check", what, file)
        assert status == 0, said
        assert "FAILED" not in said


def test_every_rule_fires_on_what_it_is_for(promtool: str) -> None:
    status, said = ask(promtool, "test", "rules", TESTS.name)
    assert status == 0, said


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.place)
def test_every_rule_is_one_that_is_shown_to_fire(rule: Query) -> None:
    shown = TESTS.read_text().split(f"- alertname: {rule.place}\n")[1:]
    assert any("exp_alerts:\n" in each.split("- alertname:")[0] for each in shown)


def test_a_rule_that_never_fires_would_be_found_out(promtool: str, tmp_path: Path) -> None:
    rules_that_do_not = RULES.read_text().replace("> 5\n", "> 5000\n")
    assert rules_that_do_not != RULES.read_text()
    (tmp_path / RULES.name).write_text(rules_that_do_not)
    shutil.copy(TESTS, tmp_path)
    status, said = ask(promtool, "test", "rules", str(tmp_path / TESTS.name))
    assert status != 0
    assert "IdlepushSlow" in said


def test_every_query_of_the_dashboard_is_one_that_prometheus_can_read(promtool: str, tmp_path: Path) -> None:
    lines = ["groups:", "- name: dashboard", "  rules:"]
    for number, query in enumerate(dashboard_queries()):
        lines += [f"  - record: query:{number}", f"    expr: {query.expression!r}"]
    file = tmp_path / "queries.yml"
    file.write_text("\n".join(lines))
    status, said = ask(promtool, "check", "rules", str(file))
    assert status == 0, said

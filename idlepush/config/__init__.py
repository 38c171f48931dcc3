"""TOML, environment and credential files become frozen settings here; each table's model lives beside its user."""

from idlepush.config.loading import Config, Problem, find, load, service_environment
from idlepush.config.show import json_schema, masked

__all__ = ["Config", "Problem", "find", "json_schema", "load", "masked", "service_environment"]

"""The configuration shown: to editors as a JSON Schema, to people as the TOML that is in force."""

from collections.abc import Iterator
from typing import Any

from pydantic.json_schema import models_json_schema

from idlepush.config import spelling
from idlepush.config.loading import SECTIONS, Config
from idlepush.engine.settings import ACCOUNT_NAME, AccountSettings
from idlepush.store.settings import Settings


def json_schema() -> dict[str, Any]:
    """Return a JSON Schema of the main file, for editors that complete and check as one types.

    It is laxer than `load`: what keys mean together is not in it, and an account may lack any key, for `[defaults]` may
    have it.
    """
    models: list[type[Settings]] = [*SECTIONS.values(), AccountSettings]
    names, schema = models_json_schema([(model, "validation") for model in models], ref_template="#/$defs/{model}")
    definitions = schema["$defs"]
    definitions["AccountSettings"]["properties"].pop("name")  # it stands in the table's header
    for model in models:
        _for_editors(definitions[model.__name__], model)
    accounts = {
        "type": "object",
        "propertyNames": {"pattern": f"^{ACCOUNT_NAME.pattern}$"},
        "additionalProperties": names[AccountSettings, "validation"],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "idlepush.toml",
        "type": "object",
        "additionalProperties": False,
        "properties": {name: names[model, "validation"] for name, model in SECTIONS.items()} | {"accounts": accounts},
        "$defs": definitions,
    }


def _for_editors(definition: dict[str, Any], model: type[Settings]) -> None:
    """Say of a table only what its writer needs, in the words that the writer uses."""
    definition.pop("required", None)
    definition["description"] = (model.__doc__ or "").split("\n")[0]
    # Built without judging them, the defaults come out as the file would spell them: "5m", not 300.
    defaults = _defaults(model)
    built = model.model_construct(**defaults)
    spelled = built.model_dump(mode="json", include=set(defaults))
    for key, described in definition["properties"].items():
        described.pop("default", None)
        if key in spelled:
            described["default"] = spelled[key]


def _defaults(model: type[Settings]) -> dict[str, Any]:
    fields = model.model_fields.items()
    return {key: field.default for key, field in fields if not field.is_required() and field.default is not None}


def masked(config: Config) -> str:
    """Return the configuration in force as TOML: defaults filled in, paths absolute, secrets `***`.

    A secret kept elsewhere is shown by its place, a command by its program alone.
    """
    tables = [("store",), ("http",), ("alerts",), ("limits",), ("metrics",)]
    shown = [_table(path, getattr(config, path[0])) for path in tables]
    shown += [_table(("accounts", name), account) for name, account in config.accounts.items()]
    return "\n".join(shown)


def _table(path: tuple[str, ...], settings: Settings) -> str:
    return "".join(f"{line}\n" for line in (f"[{spelling.dotted(path)}]", *_pairs(settings)))


def _pairs(settings: Settings) -> Iterator[str]:
    for key, value in settings.model_dump(mode="json", exclude={"name"}).items():
        if value is not None:  # TOML has no null: what is not set is not there
            yield f"{key} = {spelling.value(value)}"

"""`config show`, `config schema`: what is in force, and what may be written."""

import json

import typer

from idlepush.cli.options import ConfigOption, configuration
from idlepush.cli.printing import complain
from idlepush.config import json_schema, masked

app = typer.Typer(
    name="config",
    help="Show the configuration that is in force, and its schema.",
    epilog="Examples:\n\nidlepush config show\n\nidlepush config schema > idlepush.schema.json",
    no_args_is_help=True,
)


@app.command(epilog="Examples:\n\nidlepush config show\n\nidlepush config show -c /etc/idlepush/idlepush.toml")
def show(config: ConfigOption = None) -> None:
    """Print the configuration in force as TOML: every default filled in, paths absolute, secrets masked."""
    settings = configuration(config)
    print(masked(settings), end="")
    for problem in settings.problems:
        complain("\n".join(problem.sentences))


@app.command(
    epilog="Examples:\n\n"
    "idlepush config schema > idlepush.schema.json\n\n"
    "Then, as the first line of idlepush.toml, for editors that know Taplo: #:schema idlepush.schema.json"
)
def schema() -> None:
    """Print a JSON Schema of idlepush.toml, for editors that complete and check as one types."""
    print(json.dumps(json_schema(), indent=2))

"""`status`, `health`: how the accounts stand and how well they are, whether the service runs or not."""

import typer

from idlepush.app.clock import utc_now
from idlepush.cli.options import ConfigOption, JsonOption, configuration
from idlepush.cli.printing import ago, print_record, print_table
from idlepush.cli.standing import healths, standing

app = typer.Typer()


@app.command(
    epilog="Examples:\n\nidlepush status\n\nidlepush status --json | jq -r 'select(.health != \"healthy\") | .account'"
)
def status(as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Tell how every account stands.

    Asks the service at `listen`; without one it tells what was last stored, with `running: false`.
    """
    lines = standing(configuration(config))
    if as_json:
        for line in lines:
            print_record(line)
        return
    now = utc_now()
    print_table(
        ("account", "state", "health", "messages", "to come", "changed", "reason"),
        (
            (
                line["account"],
                line["state"],
                line["health"],
                line["messages"],
                line["backfill_remaining"],
                ago(line["last_commit"], now),
                line["reason"],
            )
            for line in lines
        ),
        wrapped=("reason",),
    )
    if lines and not any(line["running"] for line in lines):
        print("No service answers: this is what was last stored.")


@app.command(epilog="Examples:\n\nidlepush health\n\nidlepush health --json")
def health(as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Tell how well every account is, from 0 to 100, and what is wrong with it, the worst first."""
    records = healths(configuration(config))
    if as_json:
        for record in records:
            print_record(record)
        return
    print_table(
        ("account", "score", "health", "reasons"),
        ((one["account"], one["score"], one["health"], "; ".join(one["reasons"]) or None) for one in records),
        wrapped=("reasons",),
    )

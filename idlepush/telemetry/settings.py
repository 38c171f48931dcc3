"""Whom to alert and how patiently, and how much the metrics tell apart."""

from typing import Annotated

from pydantic import AfterValidator, Field

from idlepush.engine.credentials import PlainSecret, SecretSource
from idlepush.store.quantities import Duration
from idlepush.store.settings import Settings


def _apprise_url(source: SecretSource) -> SecretSource:
    if isinstance(source, PlainSecret) and "://" not in source.text.reveal():
        raise ValueError('expected an Apprise URL, like "ntfy://topic", or a secret, like { file = "alert-url" }')
    return source


class AlertSettings(Settings):
    """`[alerts]`: an Apprise URL is a secret, for most of them hold a key."""

    urls: Annotated[tuple[Annotated[SecretSource, AfterValidator(_apprise_url)], ...], Field(strict=False)] = Field(
        default=(), description="Apprise URLs; each may be kept elsewhere, as a secret.", examples=[["ntfy://topic"]]
    )
    grace: Duration = Field(
        default=120.0, description="How long a trouble lasts before anyone is told.", examples=["2m"]
    )
    cooldown: Duration = Field(default=1800.0, description="How long an alert is not repeated.", examples=["30m"])


class MetricsSettings(Settings):
    """`[metrics]`."""

    account_label: bool = Field(
        default=True, description="Whether account metrics are told apart by account.", examples=[True]
    )

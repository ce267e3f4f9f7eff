"""The endpoint card: who is asked and how; the key stays in the environment."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field

from medkit.cards.faults import validate
from medkit.cards.models import Card, Positive, Text
from medkit.cards.strict_yaml import read_card
from medkit.errors import CardError, MedkitError

KEY_VARIABLE = "MEDKIT_ENDPOINT_KEY"
# What changes how an endpoint is asked, but not what it answers.
MANNERS = frozenset({"key_variable", "concurrency", "tries", "timeout_s", "wait_s", "give_up_after"})
Seconds = Annotated[float, Field(gt=0, le=3600)]


class EndpointCard(Card):
    """An endpoint and how it is asked.

    Attributes:
        url: Base URL, up to and with ``/v1``.
        model: Name of the model as the endpoint lists it.
        key_variable: Environment variable with the key; never the key itself.
        answers_as: Name that replies must bear; empty: the model's own, or that with a date behind it; ``any``
            takes all.
        concurrency: Requests at one time.
        tries: Of one request, before it counts as failed.
        timeout_s: Of one try.
        wait_s: Pause before the second try; every further one is twice as long.
        give_up_after: So many failures one after another stop the run.
        most_image_px: Longer side of an image that is sent; larger ones are made smaller.
        token_field: How the endpoint names the limit of new tokens.
    """

    url: Text
    model: Text
    key_variable: Text = KEY_VARIABLE
    answers_as: str = ""
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    tries: Annotated[int, Field(ge=1, le=20)] = 5
    timeout_s: Seconds = 120.0
    wait_s: Seconds = 1.0
    give_up_after: Positive = 50
    most_image_px: Annotated[int, Field(ge=16, le=16_384)] = 2048
    token_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"


def read_endpoint(where: str, model: str | None = None) -> EndpointCard:
    """Gives an endpoint from a URL and a model's name, or from a card (YAML).

    Raises:
        CardError: The card has faults.
        MedkitError: The model's name is missing, or the URL can't be used.
    """
    if "://" in where:
        if not model:
            raise MedkitError(f"{where}: which model is asked? add --model NAME, as the endpoint lists it")
        card = EndpointCard(url=where, model=model)
    else:
        document = read_card(Path(where).expanduser(), where)
        if model:
            document.put(("model",), model, ("--model", 0))
        found, problems = validate(EndpointCard, document)
        if problems or found is None:
            raise CardError(problems)
        card = found
    _check_url(card.url)
    return card


def secret_of(endpoint: EndpointCard) -> str:
    """Gives the key from its environment variable, "" where none is needed.

    Raises:
        MedkitError: The card names a variable that is empty, or the key would travel in the clear.
    """
    key = os.environ.get(endpoint.key_variable, "").strip()
    if not key and endpoint.key_variable != KEY_VARIABLE:
        raise MedkitError(f"${endpoint.key_variable} holds no key; export it, or leave key_variable out")
    parts = urlsplit(endpoint.url)
    if key and parts.scheme != "https" and not is_near(parts.hostname or ""):
        raise MedkitError(f"{endpoint.url}: a key goes over https only; write https://")
    return key


def is_near(host: str) -> bool:
    """Says whether a host is this machine or one of the own network, by its name alone."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".lan"))


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise MedkitError(
            "an endpoint's URL begins with http:// or https://, for example http://127.0.0.1:8000/v1"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise MedkitError(
            f"{parts.scheme}://{parts.hostname}: an endpoint's URL holds no key, name or query, for it is stored; "
            f"put the key into ${KEY_VARIABLE}"
        )

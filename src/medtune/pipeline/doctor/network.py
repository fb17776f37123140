"""The Hub: whether it answers, and whether the token that would be sent to it is good."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import BufferingHandler
from typing import TYPE_CHECKING

from medtune.errors import MedtuneError
from medtune.pipeline.doctor.findings import Finding, State, findings_of, guarded

if TYPE_CHECKING:
    from medtune.config.schema import Config


def check_hub(config: Config | None) -> Iterator[Finding]:
    """Two findings. A Hub that is down is a warning here: whether the recipe needs it, its model and data will show."""
    from huggingface_hub import constants, is_offline_mode

    from medtune.storage.hub import is_web_address

    if not is_web_address(constants.ENDPOINT):
        return  # which has been said already
    if is_offline_mode():
        yield Finding("ok", "Hub", "HF_HUB_OFFLINE is set: nothing is asked of it, and only its cache is used")
        return
    reached = False
    for finding in guarded("Hub", _reach):
        reached = finding.state == "ok"
        yield finding
    if reached:
        # A bad token fails every request, even for what is public.
        yield from guarded("token", lambda: _check_token("warning" if config and not needs_hub(config) else "failure"))


def needs_hub(config: Config) -> bool:
    """Whether a model, an adapter, an encoder or rows of the recipe come from the Hub."""
    from medtune.data.sources import DEMO_SOURCE
    from medtune.evaluation.encoder import BUNDLED_ENCODER
    from medtune.evaluation.metrics import needs_encoder
    from medtune.model.loading import DEMO_MODEL

    sources = [source.source for source in config.data.all_sources]
    names = [config.model.base, config.model.adapter, *sources, config.data.test_source]
    if needs_encoder(config.evaluation.metrics):
        names.append(config.evaluation.bertscore_model)
    own = (DEMO_MODEL, DEMO_SOURCE, BUNDLED_ENCODER)
    return any(name is not None and name not in own and not os.path.exists(name) for name in names)


def _reach() -> Iterator[Finding]:
    from medtune.storage.hub_access import hub_host, reach_hub, time_limit

    try:
        with time_limit():
            reach_hub()
    except MedtuneError as error:
        yield from findings_of("Hub", error, "warning")
    else:
        yield Finding("ok", "Hub", f"{hub_host()} answers")


def _check_token(state: State) -> Iterator[Finding]:
    from medtune.storage.hub_access import find_login, time_limit

    try:
        with time_limit():
            login = find_login()
    except MedtuneError as error:
        yield from findings_of("token", error, state)
        return
    if login is None:
        yield Finding("ok", "token", "none; gated and private repositories would need one (`hf auth login`)")
        return
    role = f", {login.role}" if login.role else ""
    yield Finding("ok", "token", f"that of {login.origin} is good: user {login.user}{role}")


@contextmanager
def overheard() -> Iterator[list[logging.LogRecord]]:
    """Yields what `storage.hub` logs in the block, such as that it took the cache, and keeps it off the terminal."""
    logger, listener = logging.getLogger("medtune.storage.hub"), BufferingHandler(capacity=1000)
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(listener)
    try:
        yield listener.buffer
    finally:
        logger.removeHandler(listener)
        logger.propagate = propagates

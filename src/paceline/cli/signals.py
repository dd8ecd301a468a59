"""What signals mean to a gateway that is a program of its own."""

import asyncio
import logging
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from paceline.configuration import ConfigurationError
from paceline.http.server import Gateway
from paceline.workers.keeper import Keeper

log = logging.getLogger("paceline.cli")


@contextmanager
def handled_signals(gateway: Gateway | Keeper) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the gateway, SIGHUP has it take up its configuration, as long as this lasts. To be entered
    in the gateway's event loop, in the main thread: only there can signals be handled."""
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = loop.create_task(_reload(gateway))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    handlers: Mapping[signal.Signals, Callable[[], None]] = {
        signal.SIGINT: gateway.ask_to_stop,
        signal.SIGTERM: lambda: gateway.ask_to_stop(drains=True),
        signal.SIGHUP: reload,
    }
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
        for task in reloads:
            task.cancel()


async def _reload(gateway: Gateway | Keeper) -> None:
    try:
        log.info("configuration taken up: %s", await gateway.reload())
    except ConfigurationError as error:
        log.error("the configuration is not taken up, the old one stays in force:\n%s", error)
    except Exception:
        log.exception("the configuration is not taken up")

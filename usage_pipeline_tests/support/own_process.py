"""A call in a process of its own: what a hostile file can do to a reader is to hang or to kill it, and a test says so.

Belongs here: running a function apart, with a time limit. Does not: what is run, and what is expected of it.
Processes are forked from a server that has the reader loaded already, since each would take seconds to load it.
"""

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

Result = TypeVar("Result")


class DiedError(Exception):
    """The process did not answer: it was killed by a signal, or had to be ended since its time was up."""


class RaisedError(Exception):
    """The function raised; holds its trace as text."""


def _answer(channel: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        answer = (True, function(*arguments))
    except BaseException:  # also SystemExit: whoever waits wants to know
        answer = (False, traceback.format_exc())
    channel.send(answer)
    channel.close()


def apart(function: Callable[..., Result], *arguments: Any, seconds: float = 120) -> Result:
    """What `function`, importable by its name, gives in a process of its own.

    Raises RaisedError where it raises, DiedError where the process dies or takes longer than `seconds`.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["usage_pipeline_tests.support.lake_probe"])
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(there, function, arguments))
    process.start()
    there.close()
    try:
        if not here.poll(seconds):
            raise DiedError(f"still running after {seconds} seconds")
        try:
            well, answer = here.recv()
        except EOFError:
            process.join(10)
            raise DiedError(f"the process ended with exit code {process.exitcode}") from None
    finally:
        here.close()
        if process.is_alive():
            process.join(5)
            process.kill()
        process.join()
    if not well:
        raise RaisedError(answer)
    found: Result = answer
    return found

"""A process and its successors: started, watched, replaced with back-off, told to leave, and ended."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess, SpawnContext, SpawnProcess
from typing import Any

import structlog

from prunepool.errors import EngineUnavailable, PrunepoolError
from prunepool.server.backoff import RestartBackoff
from prunepool.server.control_pipe import ControlPipe, Handler
from prunepool.server.parent_watch import PARENTS_SIGNALS

_log = structlog.stdlib.get_logger("prunepool.transport")

#: Makes what a process is told when it is started, from its end of the pipe and its incarnation.
Spec = Callable[[Connection, int], object]


class Child:
    """One place in the server, and the processes that fill it in turn.

    Args:
        context: starts processes.
        name: of the place.
        run: what they run.
        spec: what they are told.
        handlers: what they may call, beside saying that they are `ready` or that starting has `failed`.
        on_death: called after each death.
        on_ready: called whenever a process is ready, with whether it is a successor.

    Attributes:
        status: exit status of the last process, once it has ended; negative: the signal that ended it.
        said: what the process said when it was ready.
    """

    def __init__(
        self,
        context: ForkServerContext | SpawnContext,
        name: str,
        run: Callable[[Any], None],
        spec: Spec,
        *,
        handlers: Mapping[str, Handler],
        on_death: Callable[[], None] = lambda: None,
        on_ready: Callable[[bool], None] = lambda successor: None,
    ) -> None:
        self.name = name
        self.status: int | None = None
        self.said: tuple[str, ...] = ()
        self._context = context
        self._run = run
        self._spec = spec
        self._handlers = {**handlers, "ready": self._on_ready, "failed": self._on_failed}
        self._on_death = on_death
        self._tell_ready = on_ready
        self._process: ForkServerProcess | SpawnProcess | None = None
        self._pipe: ControlPipe | None = None
        self._leaving = False
        self._up = False
        self._ready_since: float | None = None
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._keeping: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether it has said that it is ready."""
        return self._up

    async def start(self) -> None:
        """Start it; returns when it is ready.

        Raises:
            PrunepoolError: why it cannot be. It is not tried again then.
        """
        self._keeping = asyncio.create_task(self._keep())
        await asyncio.shield(self._ready)

    async def call(self, method: str, *arguments: str, timeout_s: float | None = None) -> Any:
        """Have it do something.

        Args:
            method: what.
            arguments: for it.
            timeout_s: seconds that it may take; None: as long as it wants.

        Raises:
            EngineUnavailable: it is not there, ends first, or does not do it in time.
            PrunepoolError: why it does not.
        """
        if self._pipe is None:
            raise EngineUnavailable(f"{self.name} is being restarted", retry_after=1.0)
        return await self._pipe.call(method, *arguments, timeout_s=timeout_s)

    async def leave(self, method: str, timeout_s: float) -> None:
        """Tell it to end, and end it if it has not done so in time; there will be no other.

        Args:
            method: what tells it.
            timeout_s: seconds that it has.
        """
        self._leaving = True
        if self._keeping is None:
            return
        if self._process is None:
            self._keeping.cancel()  # between two processes
            return
        telling = asyncio.create_task(self._tell(method))
        await asyncio.wait([self._keeping], timeout=timeout_s)
        telling.cancel()
        if not self._keeping.done():
            _log.error("process does not end by itself", name=self.name)
            self.kill()
            await asyncio.wait([self._keeping])

    def signal(self, number: int) -> None:
        """Pass a signal on."""
        if self._process is not None and self._process.pid is not None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self._leaving = True
        if self._process is not None:
            self._process.kill()

    def replace(self) -> None:
        """End the process that runs, at once, and let another one take its place."""
        if self._process is not None:
            self._process.kill()

    async def _tell(self, method: str) -> None:
        try:
            await self.call(method)
        except PrunepoolError:
            _log.debug("process has ended before it was told to", name=self.name)

    async def _keep(self) -> None:
        """Run one process after the other, until one may leave."""
        loop = asyncio.get_running_loop()
        incarnation, backoff = 0, RestartBackoff()
        while not self._leaving:
            self._ready_since = None
            try:
                await self._run_one(incarnation)
            except Exception:  # no process can be had now; whatever it is, supervision goes on
                _log.exception("process could not be started", name=self.name)
            self._on_death()
            if not self._ready.done():
                self._ready.set_exception(PrunepoolError(f"{self.name} ended before it was ready"))
                self._ready.exception()  # whoever waits is told; if nobody does, it is no news
                return
            if self._leaving or self._ready.exception() is not None:
                return
            since = self._ready_since
            delay_s = backoff.died(0.0 if since is None else loop.time() - since)
            _log.error("process died", name=self.name, status=self.status, again_in_s=delay_s)
            await asyncio.sleep(delay_s)
            incarnation += 1

    async def _run_one(self, incarnation: int) -> None:
        ours, theirs = self._context.Pipe()
        try:
            process = self._process = self._context.Process(
                target=self._run, args=(self._spec(theirs, incarnation),), name=self.name
            )
            self._pipe = ControlPipe(ours, self._handlers, self._on_hang_up)
            _start(process)
            theirs.close()
            _log.info("process started", name=self.name, pid=process.pid, incarnation=incarnation)
            await _ended(process)
            process.join()
            self.status = process.exitcode
            process.close()
        finally:
            self._up = False
            self._process = None
            if self._pipe is not None:
                self._pipe.close()
                self._pipe = None

    async def _on_ready(self, *said: str) -> None:
        self.said = said
        self._up = True
        self._ready_since = asyncio.get_running_loop().time()
        successor = self._ready.done()
        if successor:
            _log.info("process is back", name=self.name)
        else:
            self._ready.set_result(None)
        self._tell_ready(successor)

    def _on_hang_up(self) -> None:
        """Its pipe is closed: it is about to end, and does no more of what it was asked."""
        self._up = False

    async def _on_failed(self, why: str) -> None:
        if self._ready.done():
            _log.error("process could not be started", name=self.name, why=why)
        else:
            self._ready.set_exception(PrunepoolError(why))


def _start(process: ForkServerProcess | SpawnProcess) -> None:
    """Start a process with the parent's signals blocked; it unblocks them once it ignores them.

    Ctrl-C goes to every process of a terminal, also to one that is still importing.
    """
    resource_tracker.ensure_running()  # starting it later would unblock them again
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, PARENTS_SIGNALS)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


async def _ended(process: ForkServerProcess | SpawnProcess) -> None:
    """Wait for the end of a process."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    sentinel = process.sentinel

    def end() -> None:
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(sentinel, end)
    try:
        await ended
    finally:
        loop.remove_reader(sentinel)

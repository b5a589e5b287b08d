"""A process and its successors: started, watched, replaced with back-off, told to leave, and ended."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

import structlog

from prunepool.errors import EngineUnavailable, PrunepoolError
from prunepool.server.backoff import NO_PROCESS_DELAY_S, RestartBackoff
from prunepool.server.control_pipe import ControlPipe, Handler
from prunepool.server.spawning import ended, start

_log = structlog.stdlib.get_logger("prunepool.transport")

#: Makes what a process is told when it is started, from its end of the pipe and its incarnation. Pickled, it must
#: be shorter than 64 KiB, the buffer of a pipe: the parent does not wait for the process to read it.
Spec = Callable[[Connection, int], object]
#: A process that is not ready by then hangs: a core gives up on a model after 600 s.
_START_LIMIT_S = 900.0
#: One that has closed its pipe ends within that time, or hangs as it ends.
_END_LIMIT_S = 10.0
#: A process that is told to end acknowledges it at once, unless its event loop is stuck.
_ACKNOWLEDGED_S = 5.0


async def _nothing() -> None:
    pass


class Child:
    """One place in the server, and the processes that fill it in turn.

    Args:
        context: starts processes; none needs another than the parent.
        name: of the place.
        run: what they run.
        spec: what they are told.
        handlers: what they may call, beside saying that they are `ready` or that starting has `failed`.
        on_death: called after each death.
        on_return: awaited when a successor says that it is ready, before it is told that it may serve.

    Attributes:
        status: exit status of the last process, once it has ended; negative: the signal that ended it.
        said: what the process said when it was ready.
    """

    def __init__(
        self,
        context: SpawnContext,
        name: str,
        run: Callable[[Any], None],
        spec: Spec,
        *,
        handlers: Mapping[str, Handler],
        on_death: Callable[[], None] = lambda: None,
        on_return: Callable[[], Awaitable[None]] = _nothing,
    ) -> None:
        self.name = name
        self.status: int | None = None
        self.said: tuple[str, ...] = ()
        self._context = context
        self._run = run
        self._spec = spec
        self._handlers = {**handlers, "ready": self._on_ready, "failed": self._on_failed}
        self._on_death = on_death
        self._on_return = on_return
        self._process: SpawnProcess | None = None
        self._pipe: ControlPipe | None = None
        self._leaving = False
        self._up = False
        self._ready_since: float | None = None
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._keeping: asyncio.Task[None] | None = None
        self._hurried = asyncio.Event()

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
        if await self._acknowledges(telling):
            await asyncio.wait([self._keeping], timeout=timeout_s if timeout_s < math.inf else None)
        telling.cancel()
        if not self._keeping.done():
            _log.error("process does not end by itself", name=self.name)
            self.kill()
            await asyncio.wait([self._keeping])

    def signal(self, number: int) -> None:
        """Pass a signal on; nothing happens where there is no process."""
        # ValueError: it has ended, and this comes from a signal handler, between two lines of `_run_one`.
        with suppress(ProcessLookupError, ValueError):
            if self._process is not None and self._process.pid is not None:
                os.kill(self._process.pid, number)

    def hurry(self) -> None:
        """Start the next process now, if the last one died and its successor waits for its turn."""
        self._hurried.set()

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

    async def _acknowledges(self, telling: asyncio.Task[None]) -> bool:
        """Whether a process acknowledges what it is told: one whose event loop is stuck is not waited for."""
        assert self._keeping is not None
        waited = (telling, self._keeping)
        done, _ = await asyncio.wait(waited, timeout=_ACKNOWLEDGED_S, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)

    async def _keep(self) -> None:
        """Run one process after the other, until one may leave."""
        loop = asyncio.get_running_loop()
        incarnation, backoff = 0, RestartBackoff()
        while not self._leaving:
            self._ready_since = None
            started = False
            try:
                process = self._begin(incarnation)
                started = True
                await self._follow(process)
            except OSError as error:  # no process can be had now
                _log.error("process could not be started", name=self.name, why=str(error))
            except Exception:  # whatever it is, supervision goes on
                _log.exception("process could not be started or followed", name=self.name)
            finally:
                self._forget()
            try:
                self._on_death()
            except Exception:
                _log.exception("unexpected error after the death of a process", name=self.name)
            if not self._ready.done():
                self._ready.set_exception(PrunepoolError(f"{self.name} ended before it was ready"))
                self._ready.exception()  # so that asyncio does not complain where nobody waits for it
                return
            if self._leaving or self._ready.exception() is not None:
                return
            since = self._ready_since
            delay_s = backoff.died(0.0 if since is None else loop.time() - since)
            if not started:  # the system has no process to give now: asking again costs little
                delay_s = min(delay_s, NO_PROCESS_DELAY_S)
            else:
                _log.error("process died", name=self.name, status=self.status, again_in_s=delay_s)
            await self._pause(delay_s)
            incarnation += 1

    async def _pause(self, delay_s: float) -> None:
        self._hurried.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._hurried.wait()

    def _begin(self, incarnation: int) -> SpawnProcess:
        """Start a process.

        Raises:
            OSError: the system has none to give.
        """
        ours, theirs = self._context.Pipe()
        self._pipe = ControlPipe(ours, self._handlers, self._on_hang_up)
        with theirs:
            process = self._context.Process(
                target=self._run, args=(self._spec(theirs, incarnation),), name=self.name
            )
            start(process)
        self._process = process
        _log.info("process started", name=self.name, pid=process.pid, incarnation=incarnation)
        return process

    async def _follow(self, process: SpawnProcess) -> None:
        """Wait for the end of a process."""
        limit = asyncio.get_running_loop().call_later(_START_LIMIT_S, self._limit_start, process)
        try:
            await ended(process)
        finally:
            limit.cancel()
        self.status = process.exitcode

    def _limit_start(self, process: SpawnProcess) -> None:
        if self._ready_since is None:
            _log.error("process is not ready in time and is replaced", name=self.name, limit_s=_START_LIMIT_S)
            process.kill()

    def _forget(self) -> None:
        """There is no process now."""
        self._up = False
        process, self._process = self._process, None
        if process is not None and process.exitcode is not None:
            process.close()
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    async def _on_ready(self, *said: str) -> None:
        """It may serve once this returns."""
        process, successor = self._process, self._ready.done()
        self.said = said
        if successor:
            try:
                await self._on_return()
            except Exception:  # it serves what it has
                _log.exception("unexpected error at the return of a process", name=self.name)
        if process is None or process is not self._process:
            return  # it has ended meanwhile
        self._up = True
        self._ready_since = asyncio.get_running_loop().time()
        if successor:
            _log.info("process is back", name=self.name)
        else:
            self._ready.set_result(None)

    def _on_hang_up(self) -> None:
        """Its pipe is closed: it is about to end, and does no more of what it was asked."""
        self._up = False
        if (process := self._process) is not None:
            asyncio.get_running_loop().call_later(_END_LIMIT_S, self._limit_end, process)

    def _limit_end(self, process: SpawnProcess) -> None:
        if process is self._process:
            _log.error("process has hung up and does not end", name=self.name, limit_s=_END_LIMIT_S)
            process.kill()

    async def _on_failed(self, why: str) -> None:
        if self._ready.done():
            _log.error("process could not be started", name=self.name, why=why)
        else:
            self._ready.set_exception(PrunepoolError(why))

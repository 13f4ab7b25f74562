"""The client, a process of its own: reads a plan from its standard input, sends it to one port, writes the record to its standard output.

Costs the server's cores next to nothing: the standard library alone, requests that are bytes already, connections that stay open, answers
of which only the length is looked at. What it did cost is in the record.
"""

from __future__ import annotations

import asyncio
import gc
import pickle
import sys

from benchmarks.serving.http1 import AnswerReader
from benchmarks.serving.loops import run_plan
from benchmarks.serving.plan import NO_ANSWER, Reply, Request

GIVE_UP_S = 600.0
"""After which a request that has no answer counts as lost."""


def main() -> None:
    port, plan = pickle.load(sys.stdin.buffer)
    # Nothing here makes cycles that would grow; a collection would stop every client at once.
    gc.disable()
    record = asyncio.run(run_plan(plan, _Connections(port).send))
    pickle.dump(record, sys.stdout.buffer)


class _Connections:
    """As many as there are requests in progress."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[_Connection] = []

    async def send(self, request: Request) -> Reply:
        while self._idle:
            connection = self._idle.pop()
            # A server closes connections that it thinks were idle for long, at worst just when a request is on its way.
            if not connection.is_lost and (reply := await self._ask(connection, request)) is not None:
                return reply
        try:
            _, connection = await asyncio.get_running_loop().create_connection(_Connection, "127.0.0.1", self._port)
        except OSError:
            return Reply(NO_ANSWER)
        return await self._ask(connection, request) or Reply(NO_ANSWER)

    async def _ask(self, connection: _Connection, request: Request) -> Reply | None:
        """None: the connection broke."""
        try:
            async with asyncio.timeout(request.hang_up_s or GIVE_UP_S):
                reply = await connection.ask(request.payload)
        except TimeoutError:
            connection.hang_up()
            return Reply(NO_ANSWER)
        except ConnectionError:
            return None
        self._idle.append(connection)
        return reply


class _Connection(asyncio.Protocol):
    is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._answered: asyncio.Future[Reply] | None = None

    def ask(self, payload: bytes) -> asyncio.Future[Reply]:
        self._reader = AnswerReader()
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(payload)
        return self._answered

    def data_received(self, data: bytes) -> None:
        if self._answered is not None and self._reader.feed(data):
            answered, self._answered = self._answered, None
            if not answered.done():
                answered.set_result(self._reader.reply())

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(exc or ConnectionResetError("closed before the answer"))

    def hang_up(self) -> None:
        self._transport.abort()


if __name__ == "__main__":
    main()

"""A slow link in front of a port of this machine: what passes comes later, and no faster than said.

Every byte that goes either way waits for its turn at ``--rate`` and then for ``--delay``; all
connections share the rate of a direction. It prints the port that it listens on, and is ended by a
signal. Loss and a slow start, which real networks have, it lacks.

    python benchmarks/relay.py 8786 --delay 10 --rate 100
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import suppress

CHUNK = 2**16
AHEAD = 0.05
"""Seconds of the line that are read before they are due: about what a switch keeps."""


class Line:
    """One direction of the link.

    Parameters
    ----------
    delay : float
        Seconds.
    rate : float
        Bytes a second.
    """

    def __init__(self, delay: float, rate: float) -> None:
        self._delay, self._rate, self._free = delay, rate, 0.0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Bring all that one end says to the other."""
        due: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        await asyncio.gather(self._take(reader, due), self._give(due, writer))

    async def _take(
        self, reader: asyncio.StreamReader, due: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        now = asyncio.get_running_loop().time
        data = b"-"
        while data:
            try:
                data = await reader.read(CHUNK)
            except OSError:
                data = b""
            self._free = max(self._free, now()) + len(data) / self._rate
            due.put_nowait((self._free + self._delay, data))
            await asyncio.sleep(max(0.0, self._free - now() - AHEAD))

    async def _give(
        self, due: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        now = asyncio.get_running_loop().time
        while True:
            when, data = await due.get()
            await asyncio.sleep(max(0.0, when - now()))
            with suppress(OSError):
                if not data:
                    writer.close()
                    return
                writer.write(data)
                await writer.drain()


async def serve(port: int, delay: float, rate: float) -> None:
    """Listen until the process ends."""
    to, back = Line(delay, rate), Line(delay, rate)

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, here = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(to.carry(reader, here), back.carry(there, writer))

    server = await asyncio.start_server(join, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("port", type=int)
    parser.add_argument("--delay", type=float, default=10.0, help="milliseconds, one way")
    parser.add_argument("--rate", type=float, default=100.0, help="Mbit/s, each way")
    args = parser.parse_args()
    asyncio.run(serve(args.port, args.delay / 1e3, args.rate * 1e6 / 8))


if __name__ == "__main__":
    main()

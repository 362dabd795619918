"""The local Twilio in a process of its own, as slow as the real one. A program: `python -m bench.slow_twilio`.

Keeps a running counter `mesg=<n>` on its standard output, as `smtp-sink -c` does.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from notifier.dev.twilio_server import TwilioRule, TwilioServer

_FLUSH_SECONDS = 0.01


async def _serve(port: int, delay_seconds: float) -> None:
    # What it has taken is only counted, and no status is reported: nobody asked for it.
    server = TwilioServer([TwilioRule("*", delay_seconds=delay_seconds)], keep=10, callback_delay_seconds=0)
    await server.start(port=port)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    written = 0
    while not stop.is_set():
        await asyncio.sleep(_FLUSH_SECONDS)
        if server.received != written:
            written = server.received
            sys.stdout.write(f"mesg={written}\r")
            sys.stdout.flush()
    await server.stop()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m bench.slow_twilio")
    parser.add_argument("port", type=int)
    parser.add_argument("--delay", type=float, default=0.15, metavar="SECONDS")
    options = parser.parse_args()
    asyncio.run(_serve(options.port, options.delay))


if __name__ == "__main__":
    main()

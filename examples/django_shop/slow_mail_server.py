"""A mail server that takes ten seconds for each mail, to show that only the worker waits for it.

python slow_mail_server.py [SECONDS] [PORT]
"""

import asyncio
import sys

from aiosmtpd.controller import Controller


class SlowServer:
    """Accepts every mail, and throws it away."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def handle_DATA(self, server: object, session: object, envelope: object) -> str:  # noqa: N802
        await asyncio.sleep(self.seconds)
        return "250 taken"


if __name__ == "__main__":
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 2525
    controller = Controller(SlowServer(seconds), hostname="127.0.0.1", port=port)
    controller.start()
    sys.stdout.write(f"smtp://127.0.0.1:{port}\n")
    sys.stdout.flush()
    try:
        asyncio.run(asyncio.Event().wait())
    except KeyboardInterrupt:
        controller.stop()

"""A script that sends a login code, and waits until it was sent.

python send_code.py +15550100123
"""

import secrets
import sys

from notifier import Client, InvalidMessage, NotReady, PublishFailed


def main(number: str) -> int:
    """Returns the exit code: 0 when a provider has accepted the code."""
    login = secrets.token_hex(4)
    context = {"code": f"{secrets.randbelow(10**6):06}", "valid_minutes": 10}
    with Client(producer="shop") as client:
        try:
            # The same key for the same login: if it is sent again after a failure, it is still one SMS.
            handle = client.send(
                "login_code", to=number, lane="urgent", idempotency_key=f"login-{login}", context=context
            )
            status = handle.wait(timeout=30)
        except (InvalidMessage, PublishFailed, NotReady) as error:
            print(error, file=sys.stderr)
            return 1
    print(status.id, status.status)
    return 0 if status.is_successful else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

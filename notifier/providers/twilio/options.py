"""The options of a `twilio` provider."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from notifier.providers.options import BaseUrl, ProviderOptions, matching, whole_number

#: Twilio's range of ValidityPeriod. https://www.twilio.com/docs/messaging/api/message-resource
VALIDITY_SECONDS = (1, 36_000)
_IS_ACCOUNT = matching(re.compile(r"AC[0-9a-fA-F]{32}").fullmatch, "AC and 32 hexadecimal digits")


class TwilioOptions(ProviderOptions):
    account_sid: Annotated[str, _IS_ACCOUNT] = Field(description="the AC… of the account, from Twilio's console")
    auth_token: str = Field(repr=False, description="the account's primary auth token")
    #: Another base URL of the API: the local Twilio, or an egress proxy. None: https://api.twilio.com
    api_base: BaseUrl | None = None
    #: The URL at which Twilio reaches our webhooks; None: no status callbacks.
    public_url: BaseUrl | None = None
    #: Twilio drops a message that it could not send within this; a message's `expires_at` may make it shorter.
    validity_seconds: Annotated[int, whole_number(*VALIDITY_SECONDS)] = Field(
        VALIDITY_SECONDS[1], alias="validity"
    )

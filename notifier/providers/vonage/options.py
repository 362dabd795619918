"""The options of a `vonage` provider."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from notifier.providers.options import BaseUrl, ProviderOptions, matching, whole_number

#: How an account may sign, as set in the dashboard. All but the first are HMACs.
METHODS = ("md5hash", "md5", "sha1", "sha256", "sha512")
#: Vonage's range of `ttl`, and its default of 72 hours. https://developer.vonage.com/en/api/sms
TTL_SECONDS = (20, 604_800)
_DEFAULT_TTL_SECONDS = 259_200
_IS_METHOD = matching(METHODS.__contains__, f"one of {', '.join(METHODS)}")


class VonageOptions(ProviderOptions):
    needed_by_webhooks = ("public_url", "signature_secret")

    api_key: str = Field(description="the API key of the account, from Vonage's dashboard")
    api_secret: str = Field(repr=False, description="the API secret of the account")
    #: Base URL of the API; another one for the local Vonage or an egress proxy.
    api_base: BaseUrl = "https://rest.nexmo.com"
    #: The URL at which Vonage reaches our webhooks; None: receipts go to the address in the account's dashboard.
    public_url: BaseUrl | None = None
    #: The secret with which Vonage signs receipts; None: receipts are refused.
    signature_secret: str | None = Field(None, repr=False)
    signature_method: Annotated[str, _IS_METHOD] = METHODS[0]
    #: Vonage drops a message that it could not send within this; a message's `expires_at` may make it shorter.
    validity_seconds: Annotated[int, whole_number(*TTL_SECONDS)] = Field(_DEFAULT_TTL_SECONDS, alias="validity")

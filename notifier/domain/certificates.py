"""Reads what a TLS error says about the server's certificate."""

from __future__ import annotations

import ssl

#: OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH.
_MISMATCHES = (62, 64)


def is_of_another_host(error: ssl.SSLError) -> bool:
    """Whether the certificate is trusted, but not valid for the requested name or IP address."""
    return isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _MISMATCHES

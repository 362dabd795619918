#!/bin/sh
# Sends a login code over HTTP, and waits until it is sent: sh send.sh +15550100123 042137
set -eu

# Use the same key for the same login: a code that is sent again after a failure is still one SMS.
key="login-$(date +%s)-$$"
call() {
    # --retry also retries after a time-out and a 429, which the idempotency key makes safe. -K keeps the API key out of process lists.
    printf 'header = "Authorization: Bearer %s"\n' "$NOTIFIER_API_KEY" |
        curl -K - -sS --fail-with-body --max-time 30 --retry 5 --retry-connrefused "$@"
}

answer=$(call "$NOTIFIER_API_URL/v1/notifications" -H 'Content-Type: application/json' -H "Idempotency-Key: $key" \
    -d '{"channel": "sms", "lane": "urgent", "to": "'"$1"'", "template": "login_code",
         "context": {"code": "'"$2"'", "valid_minutes": 10}}')
id=$(printf '%s' "$answer" | sed 's/.*"id":"\([^"]*\)".*/\1/')
call "$NOTIFIER_API_URL/v1/notifications/$id/status?wait=20"
echo

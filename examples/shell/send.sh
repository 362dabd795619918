#!/bin/sh
# Sends a login code over HTTP, and waits until it is out: sh send.sh +15550100123 042137
set -eu

# The same key for the same login: sent again after a failure, it is one SMS.
key="login-$(date +%s)-$$"
call() {
    # --retry also after a time-out and a 429: the key makes it one message. The key of the API is in no list of processes.
    printf 'header = "Authorization: Bearer %s"\n' "$NOTIFIER_API_KEY" |
        curl -K - -sS --fail-with-body --max-time 30 --retry 5 --retry-connrefused "$@"
}

answer=$(call "$NOTIFIER_API_URL/v1/notifications" -H 'Content-Type: application/json' -H "Idempotency-Key: $key" \
    -d '{"channel": "sms", "lane": "urgent", "to": "'"$1"'", "template": "login_code",
         "context": {"code": "'"$2"'", "valid_minutes": 10}}')
id=$(printf '%s' "$answer" | sed 's/.*"id":"\([^"]*\)".*/\1/')
call "$NOTIFIER_API_URL/v1/notifications/$id/status?wait=20"
echo

#!/bin/sh
# Publishes a login code to RabbitMQ with amqp-tools (Debian): sh publish.sh +15550100123 042137
#
# amqp-publish does not wait for a confirmation and sets no user_id. Use it to try things out, and for producers that
# notifier.toml does not name. Scripts that must not lose a message use send.sh.
set -eu

case $NOTIFIER_BROKER_URL in
amqp://* | amqps://*) ;;
*)
    echo "publish.sh: NOTIFIER_BROKER_URL is not a RabbitMQ (amqp://…): run \`notifier up --broker rabbitmq\`" >&2
    exit 1
    ;;
esac

printf '{"producer": "shop", "idempotency_key": "login-%s-%s", "to": "%s", "template": "login_code",
    "context": {"code": "%s", "valid_minutes": 10}}' "$(date +%s)" "$$" "$1" "$2" |
    amqp-publish --url="$NOTIFIER_BROKER_URL" --exchange=notify --routing-key=sms.urgent \
        --content-type=application/json --persistent
echo "published login_code to $1"

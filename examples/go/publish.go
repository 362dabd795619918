// Publishes a login code to RabbitMQ, and returns when the broker has confirmed it: go run publish.go +15550100123 042137
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func main() {
	url := os.Getenv("NOTIFIER_BROKER_URL")
	uri, err := amqp.ParseURI(url)
	check(err)
	connection, err := amqp.Dial(url)
	check(err)
	defer connection.Close()
	channel, err := connection.Channel()
	check(err)
	check(channel.Confirm(false))
	returned := channel.NotifyReturn(make(chan amqp.Return, 1))

	// Use the same key for the same login: a code that is published again after a failure is still one SMS.
	key := fmt.Sprintf("login-%d", time.Now().UnixNano())
	body, err := json.Marshal(map[string]any{
		"producer":        "shop",
		"idempotency_key": key,
		"to":              os.Args[1],
		"template":        "login_code",
		"context":         map[string]any{"code": os.Args[2], "valid_minutes": 10},
	})
	check(err)

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	const mandatory, immediate = true, false
	confirmation, err := channel.PublishWithDeferredConfirmWithContext(ctx, "notify", "sms.urgent", mandatory, immediate,
		amqp.Publishing{
			ContentType:  "application/json",
			DeliveryMode: amqp.Persistent,
			UserId:       uri.Username, // the broker checks it
			Body:         body,
		})
	check(err)
	answer := make(chan bool, 1)
	go func() { answer <- confirmation.Wait() }()
	select {
	case acknowledged := <-answer:
		if !acknowledged {
			log.Fatal("the broker refused it: publish it again with the same key")
		}
	case <-ctx.Done():
		log.Fatal("no confirmation in time: publish it again with the same key")
	}
	select {
	case <-returned: // a return comes before the confirmation
		log.Fatal("no queue takes it: start the intake, or run `notifier queues declare`")
	default:
	}
	fmt.Println(key)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.atomic.AtomicBoolean;

/** Publishes a login code to RabbitMQ, and returns when the broker has it: java Publish.java +15550100123 042137 */
public class Publish {
    public static void main(String[] arguments) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(System.getenv("NOTIFIER_BROKER_URL"));
        // Use the same key for the same login: a code that is published again after a failure is still one SMS.
        String key = "login-" + System.nanoTime();
        String body = String.format(
            "{\"producer\": \"shop\", \"idempotency_key\": \"%s\", \"to\": \"%s\", \"template\": \"login_code\","
                + " \"context\": {\"code\": \"%s\", \"valid_minutes\": 10}}",
            key, arguments[0], arguments[1]);
        AMQP.BasicProperties properties = new AMQP.BasicProperties.Builder()
            .contentType("application/json")
            .deliveryMode(2)
            .userId(factory.getUsername()) // the broker checks it
            .build();
        try (Connection connection = factory.newConnection(); Channel channel = connection.createChannel()) {
            AtomicBoolean returned = new AtomicBoolean();
            channel.addReturnListener((code, text, exchange, routingKey, basic, content) -> returned.set(true));
            channel.confirmSelect();
            channel.basicPublish("notify", "sms.urgent", true, properties, body.getBytes(StandardCharsets.UTF_8));
            channel.waitForConfirmsOrDie(5000);
            if (returned.get()) {
                throw new IllegalStateException("no queue takes it: start the intake, or run `notifier queues declare`");
            }
        }
        System.out.println(key);
    }
}

// Publishes a login code to RabbitMQ, and returns when the broker has confirmed it: node publish.mjs +15550100123
import { randomBytes, randomInt } from "node:crypto";
import amqp from "amqplib";

const url = new URL(process.env.NOTIFIER_BROKER_URL);
if (!["amqp:", "amqps:"].includes(url.protocol)) {
  console.error("publish.mjs: NOTIFIER_BROKER_URL is not a RabbitMQ (amqp://…): run `notifier up --broker rabbitmq`");
  process.exit(1);
}
const connection = await amqp.connect(url.href);
const channel = await connection.createConfirmChannel();

let returned = false;
channel.on("return", () => (returned = true));

const message = {
  producer: "shop",
  // Use the same key for the same login: a code that is published again after a failure is still one SMS.
  idempotency_key: `login-${randomBytes(4).toString("hex")}`,
  to: process.argv[2],
  template: "login_code",
  context: { code: String(randomInt(1e6)).padStart(6, "0"), valid_minutes: 10 },
};
channel.publish("notify", "sms.urgent", Buffer.from(JSON.stringify(message)), {
  contentType: "application/json",
  persistent: true,
  mandatory: true,
  userId: decodeURIComponent(url.username), // the broker checks it
});
await channel.waitForConfirms(); // throws if the broker refuses it
await connection.close();
if (returned) throw new Error("no queue takes it: start the intake, or run `notifier queues declare`");
console.log(message.idempotency_key);
console.error("The broker has it. What became of it: notifier search, or the console");

// Sends a login code over HTTP, and waits until it is sent: node send.mjs +15550100123
// Needs no package, only Node.js 18 or later.
import { randomBytes, randomInt } from "node:crypto";

const { NOTIFIER_API_URL: api, NOTIFIER_API_KEY: key } = process.env;
const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };

async function call(path, options = {}) {
  const answer = await fetch(api + path, { ...options, headers, signal: AbortSignal.timeout(30_000) });
  const body = await answer.json();
  // If the message is wrong, `errors` lists everything that is wrong with it.
  if (!answer.ok) throw new Error(`${answer.status} ${JSON.stringify(body.errors ?? body.detail)}`);
  return body;
}

const message = {
  channel: "sms",
  lane: "urgent",
  // Use the same key for the same login: a code that is sent again after a failure is still one SMS.
  idempotency_key: `login-${randomBytes(4).toString("hex")}`,
  to: process.argv[2],
  template: "login_code",
  context: { code: String(randomInt(1e6)).padStart(6, "0"), valid_minutes: 10 },
};
const { id } = await call("/v1/notifications", { method: "POST", body: JSON.stringify(message) });
const { status } = await call(`/v1/notifications/${id}/status?wait=20`);
console.log(id, status);

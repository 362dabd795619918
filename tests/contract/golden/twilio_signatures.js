// Signs the cases of twilio_signatures.v1.json with Twilio's own library for Node (npm package `twilio`, MIT).
//   node twilio_signatures.js <folder with node_modules/twilio> < cases.json > signatures.json
const { getExpectedTwilioSignature } = require(`${process.argv[2]}/node_modules/twilio/lib/webhooks/webhooks`);
const cases = JSON.parse(require("fs").readFileSync(0, "utf-8"));
const signed = cases.map(({ token, url, form }) => getExpectedTwilioSignature(token, url, form));
process.stdout.write(JSON.stringify(signed));

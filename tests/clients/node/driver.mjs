// Runs Node.js clients on behalf of the tests: each line of JSON that comes in says what to do, one goes out with what came of it.
//
// A client is a module `with_<name>.mjs` with a function for each scenario, which takes the URL of the gateway, a key and a model.
// What a client throws is the answer too.
import { createInterface } from "node:readline";

// What libraries print must not get between the lines.
const answer = process.stdout.write.bind(process.stdout);
console.log = console.info = console.warn = console.error;
// A client may reject promises that nobody waits for; the one that is waited for says the same.
process.on("unhandledRejection", () => {});

function failed(error) {
  const cause = error.lastError ?? error;
  const status = cause.status ?? cause.statusCode ?? null;
  return { error: cause.constructor?.name ?? "Error", status, message: String(cause.message ?? cause).slice(0, 2000) };
}

for await (const line of createInterface({ input: process.stdin })) {
  const job = JSON.parse(line);
  let result;
  try {
    result = await (await import(`./with_${job.client}.mjs`))[job.scenario](job);
  } catch (error) {
    result = failed(error);
  }
  answer(JSON.stringify(result) + "\n");
}

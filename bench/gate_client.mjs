// The client of `bench/gate.py` that lives behind doors in practice: Node as it is, the same inside a door and outside.
//
// NODE_EXTRA_CA_CERTS=CA node gate_client.mjs URL      a line of input is a question, a line of output its answer: as gate_client.py

import { promises as dns } from "node:dns";
import https from "node:https";
import { createInterface } from "node:readline";

const url = process.argv[2];
const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params: { text: "x".repeat(430) } });

const { address } = await dns.lookup(new URL(url).hostname); // once: a connection is measured, a lookup has its own line
const lookup = (host, options, done) => (options.all ? done(null, [{ address, family: 4 }]) : done(null, address, 4));
const headers = { "content-type": "application/json", "content-length": body.length };
const keeping = new https.Agent({ keepAlive: true });

function answered(options, sent) {
  return new Promise((resolve, reject) => {
    const request = https.request(url, options, (answer) => {
      if (answer.statusCode !== 200) reject(new Error(`answered ${answer.statusCode}`));
      answer.on("error", reject).on("end", resolve).resume();
    });
    request.on("error", reject).end(sent);
  });
}

async function fetched() {
  const answer = await fetch(url, { method: "POST", body, headers: { "content-type": "application/json" } });
  if (answer.status !== 200) throw new Error(`answered ${answer.status}`);
  await answer.text();
}

const questions = {
  fresh: () => answered({ agent: false, lookup }), // connect, handshake, one request; closed behind the answer
  kept: () => answered({ agent: keeping, method: "POST", headers }, body), // on a connection that an agent keeps
  fetched, // on one that fetch keeps
};

for await (const line of createInterface({ input: process.stdin })) {
  const [what, times] = line.split(" ");
  const taken = [];
  for (let done = 0; done < Number(times); done += 1) {
    const began = performance.now();
    await questions[what]();
    taken.push((performance.now() - began) / 1000);
  }
  process.stdout.write(`${JSON.stringify(taken)}\n`);
}

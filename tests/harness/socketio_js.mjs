// Many JavaScript clients in one process: a JSON line in is a command, a JSON line out is its answer.
// {"id": 1, "command": "emit", "client": 1, ...} -> {"id": 1, "value": ...} or {"id": 1, "error": "..."}
// Bytes are {"$binary": "<base64>"} in both directions.
import readline from "node:readline";

import { JsClient } from "./js_client.mjs";

const EXIT_MS = 2000;
const clients = new Map();

const COMMANDS = {
  open: async (_, { client, package: name, settings }) => {
    const { Manager } = await import(name);
    clients.set(client, new JsClient(Manager, settings));
    return true;
  },
  state: (client) => client.state(),
  messages: (client) => client.messages,
  records: (client) => client.raw,
  order: (client) => client.order,
  wait: (client, { conditions, timeout }) => client.wait(conditions, timeout),
  emit: (client, { event, args, ack, timeout }) => client.emit(event, args, ack, timeout),
  emit_many: (client, { event, messages, ack, retry, timeout, attempt }) =>
    client.emitMany(event, messages, ack, retry, timeout, attempt),
  drop: (client, { reset }) => client.drop(reset),
  reconnect_to: (client, { url, reset }) => client.reconnectTo(url, reset),
  connect: (client) => client.connect(),
  close: (client) => client.close(),
  send_packet: (client, { data }) => client.sendPacket(data),
  send_frame: (client, { data }) => client.sendFrame(data),
  send_bytes: (client, { data }) => client.sendBytes(data),
  set_reading: (client, { reading }) => client.setReading(reading),
};

const revive = (_, value) => (typeof value?.$binary === "string" ? Buffer.from(value.$binary, "base64") : value);

// Not an arrow: `this[key]` is the value before Buffer.toJSON had its say.
function replace(key, value) {
  return Buffer.isBuffer(this[key]) ? { $binary: this[key].toString("base64") } : value;
}

function answer(reply) {
  process.stdout.write(`${JSON.stringify(reply, replace)}\n`);
}

async function obey(line) {
  const { id, command, ...rest } = JSON.parse(line, revive);
  try {
    answer({ id, value: (await COMMANDS[command](clients.get(rest.client), rest)) ?? null });
  } catch (error) {
    answer({ id, error: String(error?.message ?? error) });
  }
}

async function exit() {
  const bound = new Promise((resolve) => setTimeout(resolve, EXIT_MS));
  await Promise.race([bound, Promise.all([...clients.values()].map((client) => client.close()))]);
  process.exit(0);
}

const lines = readline.createInterface({ input: process.stdin });
lines.on("line", obey);
lines.on("close", exit);

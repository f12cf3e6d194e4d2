// Real socket.io-client clients that read, and publish, for a whole run. What they see goes out as events of
// record.py, a line each; what they are to do comes in, a line each:
//   {"do": "open", "name", "transports", "recovery", "publishes": seconds between two messages or null}
//   {"do": "drop", "name", "reset": bool}  the network goes; the client comes back on an instance of its choice
//   {"do": "quiet", "quiet": bool}         nobody publishes (more)
//   {"do": "close"}                        everybody disconnects; answered by {"closed": true}
import readline from "node:readline";

import { Manager } from "socket.io-client";

import { DroppingAgent } from "../harness/dropping_agent.mjs";

// argv: the seed, then name=url of each instance
const [seed, ...pairs] = process.argv.slice(2);
const INSTANCES = pairs.map((pair) => pair.split("="));

const ANSWER_MS = 3500; // after that a publisher gives up, and sends the message again
const AGAIN_MS = 200;
const LOOK_MS = 50;
const BIG = 0.05; // share of messages that fill what a message may take
const MANAGER = { reconnectionDelay: 100, reconnectionDelayMax: 1000, randomizationFactor: 0.5, timeout: 3000 };

// Seconds of the system's monotonic clock: on Linux the same as Python's time.monotonic().
const now = () => Number(process.hrtime.bigint()) / 1e9;
const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

const clients = new Map();
let quiet = false;
let lines = [];

function record(type, fields) {
  if (lines.length === 0) setImmediate(flush);
  lines.push(JSON.stringify({ type, at: now(), ...fields }));
}

function flush() {
  process.stdout.write(`${lines.join("\n")}\n`);
  lines = [];
}

// A generator of its own for each client, so that a run can be repeated from its seed (mulberry32).
function chance(name) {
  let state = [...`${seed}/${name}`].reduce((hash, c) => Math.imul(hash ^ c.codePointAt(0), 0x01000193), 0x811c9dc5);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

class Client {
  #agent = new DroppingAgent({ keepAlive: true });
  #instance;
  #epoch = null;
  #newest = null;
  #closed = false;

  constructor({ name, transports, recovery, publishes }) {
    this.name = name;
    this.chance = chance(name);
    this.manager = new Manager(this.#choose(), { ...MANAGER, transports, agent: this.#agent, autoConnect: false });
    const auth = recovery ? { recovery: true } : (send) => send(this.#position());
    this.socket = this.manager.socket("/", { auth });
    this.manager.on("reconnect_attempt", () => {
      this.manager.uri = this.#choose();
    });
    this.#listen();
    this.socket.connect();
    if (publishes !== null) this.#publish(publishes);
  }

  // The network goes: no close frame, no close packet.
  async drop(reset) {
    const { engine } = this.manager;
    while (engine && engine.readyState !== "closed") {
      const { transport } = engine;
      // A polling transport that is open would tell the server of its end, by a new request.
      if (transport.name === "polling") transport.readyState = "closed";
      this.#agent.drop(reset);
      await sleep(1);
      if (transport.name === "polling" && engine.readyState !== "closed") transport.onError("xhr poll error", 0);
    }
  }

  close() {
    this.#closed = true;
    this.socket.disconnect();
    setTimeout(() => this.#agent.destroy(), 200);
  }

  #choose() {
    const [name, url] = INSTANCES[Math.floor(this.chance() * INSTANCES.length)];
    this.#instance = name;
    return url;
  }

  #position() {
    return this.#epoch === null ? {} : { after: this.#newest, epoch: this.#epoch };
  }

  #odd(what) {
    record("Odd", { who: this.name, what });
  }

  #listen() {
    const { name: reader, socket } = this;
    socket.on("session", ({ epoch, last_id, recovered }) => {
      record("Session", { reader, epoch, last_id, recovered, instance: this.#instance });
      this.#epoch = epoch;
      if (!recovered) this.#newest = last_id;
    });
    socket.on("reset", ({ epoch, last_id }) => {
      record("Reset", { reader, epoch, last_id });
      [this.#epoch, this.#newest] = [epoch, last_id];
    });
    socket.on("message", ({ id, nonce, ts }) => {
      record("Received", { reader, id, nonce: nonce ?? "", ts }); // a stranger may name none
      this.#newest = id;
    });
    socket.on("disconnect", (reason) => {
      record("Left", { reader });
      if (!this.#closed && !socket.active) this.#odd(`stays away: ${reason}`);
    });
    socket.on("connect_error", (error) => {
      if (error.data !== undefined) this.#odd(`was refused: ${error.message} ${JSON.stringify(error.data)}`);
      else if (!socket.active && !this.#closed) socket.connect();
    });
  }

  #text() {
    const length = this.chance() < BIG ? 3000 : Math.floor(this.chance() * 200);
    return `${this.name} ${"x".repeat(length)}`;
  }

  async #publish(seconds) {
    for (let number = 0; ; number += 1) {
      await sleep(seconds * 2000 * this.chance());
      const nonce = `${this.name}-${number}`;
      const text = this.#text();
      while (!(await this.#send(nonce, text))) await sleep(AGAIN_MS);
    }
  }

  // Whether the message is stored.
  async #send(nonce, text) {
    while (quiet || !this.socket.connected) await sleep(LOOK_MS);
    record("Sent", { publisher: this.name, nonce, instance: this.#instance });
    const answered = (fields) => record("Answered", { publisher: this.name, nonce, ...fields });
    try {
      const { ok, id, duplicate, error } = await this.socket.timeout(ANSWER_MS).emitWithAck("message", { text, nonce });
      answered(ok ? { id, duplicate } : { code: error.code });
      return ok;
    } catch (error) {
      answered({ code: this.socket.connected && error.message.includes("timed out") ? "timeout" : "dropped" });
      return false;
    }
  }
}

const ACTIONS = {
  open: (settings) => clients.set(settings.name, new Client(settings)),
  drop: ({ name, reset }) => clients.get(name).drop(reset),
  quiet: (command) => {
    quiet = command.quiet;
  },
  close: () => {
    quiet = true;
    for (const client of clients.values()) client.close();
    setTimeout(() => process.stdout.write('{"closed":true}\n'), 500);
  },
};

const commands = readline.createInterface({ input: process.stdin });
commands.on("line", (line) => {
  const command = JSON.parse(line);
  ACTIONS[command.do](command);
});
commands.on("close", () => process.exit(0));

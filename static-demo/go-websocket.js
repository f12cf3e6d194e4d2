// The plain WebSocket at /ws behind the few methods of socket.io-client's socket that client.js uses.
// /ws says neither where the log stands nor what became of a message; /readyz and the message itself do.

const BACKOFF_MS = [300, 600, 1200, 2500, 5000];
const REMEMBERED = 2000; // nonces of stored messages
const CODES = { 1008: "invalid", 1009: "too_large", 1007: "invalid" };

export class GoWebSocket {
  connected = false;
  #auth;
  #handlers = new Map();
  #socket = null;
  #wanted = true;
  #failures = 0;
  #timer = 0;
  #waiting = new Map(); // nonce -> how its emitWithAck ends
  #stored = new Map(); // nonce -> id

  constructor(auth) {
    this.#auth = auth;
    addEventListener("online", () => this.#retry(0));
    addEventListener("offline", () => this.drop());
    queueMicrotask(() => this.#open());
  }

  on(event, handler) {
    this.#handlers.set(event, [...(this.#handlers.get(event) ?? []), handler]);
    return this;
  }

  connect() {
    this.#wanted = true;
    this.#retry(0);
  }

  disconnect() {
    this.#wanted = false;
    clearTimeout(this.#timer);
    this.#lost("client disconnect");
  }

  // As a network loss: whatever is on its way is lost, and the connection is sought again.
  drop() {
    this.#lost("dropped");
    this.#retry();
  }

  timeout(milliseconds) {
    return { emitWithAck: (_event, message) => this.#publish(message, milliseconds) };
  }

  async #publish(message, milliseconds) {
    if (this.#stored.has(message.nonce)) return { ok: true, id: this.#stored.get(message.nonce) };
    if (!this.connected) throw new Error("not connected");
    let timer;
    return new Promise((resolve, reject) => {
      this.#waiting.set(message.nonce, { resolve, reject });
      timer = setTimeout(() => reject(new Error("timeout")), milliseconds);
      this.#socket.send(JSON.stringify(message));
    }).finally(() => {
      clearTimeout(timer);
      this.#waiting.delete(message.nonce);
    });
  }

  async #open() {
    if (this.#socket || !this.#wanted) return;
    let position;
    this.#auth((auth) => (position = auth));
    const known = position.epoch !== undefined;
    const standing = known ? null : await standingOfTheLog();
    if (this.#socket || !this.#wanted) return;
    if (!known && !standing) return this.#retry();
    const { after, epoch } = known ? position : { after: standing.last_id, epoch: standing.epoch };
    const url = new URL(`/ws?after=${after}&epoch=${epoch}`, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = (this.#socket = new WebSocket(url));
    const current = () => socket === this.#socket;
    let held = []; // until it is known of which life of the log they are
    const begin = async () => {
      const now = standing ?? (await standingOfTheLog()) ?? { epoch, last_id: after };
      if (!current()) return;
      const recovered = known ? now.epoch === epoch : null;
      const session = { epoch: now.epoch, last_id: now.last_id, recovered };
      this.#emit("session", { ...session, replayed: recovered ? now.last_id - after : 0 });
      // A replay that is not possible any more is answered with all that is known.
      const first = held[0]?.id ?? 0;
      if (recovered && first > after + 1) this.#emit("session", { ...session, last_id: first - 1, recovered: false });
      held.forEach((message) => this.#emit("message", message));
      held = null;
    };
    socket.onopen = () => {
      this.#failures = 0;
      this.connected = true;
      this.#emit("connect");
      begin();
    };
    socket.onmessage = ({ data }) => {
      if (!current()) return;
      for (const line of data.split("\n")) {
        const message = JSON.parse(line);
        this.#acknowledge(message);
        if (held) held.push(message);
        else this.#emit("message", message);
      }
    };
    socket.onclose = ({ code, reason }) => {
      if (!current()) return;
      // With several messages on their way nobody knows which one it was; they are sent again, one is left.
      if (CODES[code] && this.#waiting.size === 1) {
        const [[, { resolve }]] = this.#waiting;
        resolve({ ok: false, error: { code: CODES[code], message: reason } });
      }
      this.#lost(reason ? `${code} ${reason}` : `${code}`, code);
      this.#retry();
    };
  }

  #acknowledge({ nonce, id }) {
    if (nonce === undefined) return;
    this.#stored.set(nonce, id);
    if (this.#stored.size > REMEMBERED) this.#stored.delete(this.#stored.keys().next().value);
    this.#waiting.get(nonce)?.resolve({ ok: true, id });
  }

  #lost(reason, code) {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    if (!this.connected) return;
    this.connected = false;
    for (const { reject } of this.#waiting.values()) reject(new Error("disconnected"));
    this.#emit("disconnect", reason, { code });
  }

  #retry(milliseconds = BACKOFF_MS[Math.min(this.#failures++, BACKOFF_MS.length - 1)] * (0.75 + Math.random() / 2)) {
    clearTimeout(this.#timer);
    if (this.#wanted) this.#timer = setTimeout(() => this.#open(), milliseconds);
  }

  #emit(event, ...args) {
    for (const handler of this.#handlers.get(event) ?? []) handler(...args);
  }
}

async function standingOfTheLog() {
  try {
    const { epoch, last_id } = await (await fetch("/readyz", { cache: "no-store" })).json();
    return epoch ? { epoch, last_id } : null;
  } catch {
    return null;
  }
}

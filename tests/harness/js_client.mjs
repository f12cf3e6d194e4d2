// One real socket.io-client socket with everything it saw on record, and waits for conditions on that record.
import { DroppingAgent } from "./dropping_agent.mjs";
import { ExactlyOnce, TakesAll } from "./exactly_once.mjs";

const RETRY_MS = 50;
const RELOAD_RETRY_MS = 50;
const CLOSE_MS = 500; // what a server may take to end the connections of a client that closed
const CHANGE_MS = 20; // at most this often is a waiter for any change told of one
const QUICK_RECONNECTION = { reconnectionDelay: 50, reconnectionDelayMax: 200, randomizationFactor: 0, timeout: 5000 };

const RECOVERY = { recovery: true };

// Seconds of the system's monotonic clock: on Linux the same as Python's time.monotonic().
const now = () => Number(process.hrtime.bigint()) / 1e9;
const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// No answer at all is {error: "..."}, the server's is {ok: false, error: {code}}.
const worthRetrying = (answer) => typeof answer?.error === "string" || answer?.error?.code === "unavailable";

const CONDITIONS = {
  connected: (client, value) => client.socket.connected === value,
  settled: (client) => client.socket.connected || !client.socket.active,
  active: (client, value) => client.socket.active === value,
  transport: (client, value) => client.transport === value,
  count: (client, value) => client.ids.length >= value,
  raw_count: (client, value) => client.raw.length >= value,
  last: (client, value) => client.ids.length > 0 && client.ids.at(-1) >= value,
  ids: (client, value) => client.ids.length >= value.length && value.every((id) => client.has(id)),
  sessions: (client, value) => client.sessions.length >= value,
  resets: (client, value) => client.resets.length >= value,
  events: (client, value) => client.events.length >= value,
  connects: (client, value) => client.connects.length >= value,
  disconnects: (client, value) => client.disconnects.length >= value,
  connect_errors: (client, value) => client.connectErrors.length >= value,
  reloads: (client, value) => client.reloads >= value,
};

export class JsClient {
  #track;
  #reload;
  #recovery;
  #reloading = null; // a token of the reload under way; live messages are held back meanwhile
  #held = [];
  #kept = new Set();
  #waiters = new Set();
  #lastAuth = null;
  #agent;

  ids = [];
  messages = [];
  raw = [];
  order = []; // what came, in words, in its order
  sessions = [];
  resets = [];
  events = [];
  connects = [];
  disconnects = [];
  connectErrors = [];
  reloads = 0;
  reloadErrors = [];
  version = 0;

  // `Manager` is that of the socket.io-client to use: there are several.
  constructor(Manager, { url, transports, auth, recovery, track, reload, options = {} }) {
    const { keepAlive = false, ...rest } = options;
    this.#track = track && !recovery ? new ExactlyOnce(auth ?? {}) : new TakesAll();
    this.#reload = reload;
    this.#recovery = recovery;
    this.#agent = new DroppingAgent({ keepAlive });
    const settings = { ...QUICK_RECONNECTION, agent: this.#agent, ...rest, autoConnect: false };
    if (transports) settings.transports = transports;
    this.manager = new Manager(url, settings);
    this.socket = this.manager.socket("/", {
      ...settings,
      auth: recovery ? RECOVERY : (send) => send(this.#auth(auth)),
    });
    this.#listen();
    this.socket.connect();
  }

  get transport() {
    return this.manager.engine?.readyState === "open" ? this.manager.engine.transport.name : null;
  }

  has(id) {
    return this.#kept.has(id);
  }

  state() {
    return {
      version: this.version,
      url: this.manager.uri,
      connected: this.socket.connected,
      active: this.socket.active,
      id: this.socket.id ?? null,
      transport: this.transport,
      recovered: Boolean(this.socket.recovered),
      pid: this.socket._pid ?? null,
      offset: this.socket._lastOffset ?? null,
      epoch: this.#track.epoch,
      newest: this.#track.newest,
      ids: this.ids,
      raw_ids: this.raw.map(({ message }) => message?.id ?? null),
      duplicates_dropped: this.#track.duplicates,
      out_of_order: this.#track.outOfOrder,
      sessions: this.sessions,
      resets: this.resets,
      events: this.events,
      connects: this.connects,
      disconnects: this.disconnects,
      connect_errors: this.connectErrors,
      reloads: this.reloads,
      reload_errors: this.reloadErrors,
    };
  }

  // ---- what a test does

  async emit(event, args, ack, timeoutMs) {
    if (ack) return (await this.#emitWithAck(event, args, timeoutMs)) ?? null;
    this.socket.emit(event, ...args);
    return null;
  }

  async emitMany(event, messages, ack, retry, timeoutMs, attemptMs) {
    const deadline = now() + timeoutMs / 1000;
    if (!ack) {
      for (const message of messages) this.socket.emit(event, message);
      return [];
    }
    const send = (message) =>
      this.emit(event, [message], true, retry ? attemptMs : timeoutMs).catch((error) => ({ error: error.message }));
    return Promise.all(
      messages.map(async (message) => {
        let answer = await send(message);
        while (retry && now() < deadline && worthRetrying(answer)) {
          await sleep(RETRY_MS);
          answer = await send(message);
        }
        return answer;
      }),
    );
  }

  // The network goes: no close frame, no close packet. Resolves when the client has noticed.
  async drop(reset) {
    const engine = this.manager.engine;
    if (!engine || engine.readyState === "closed") return false;
    while (engine.readyState !== "closed") {
      const { transport } = engine;
      // A polling transport that is open would tell the server of its end, by a new request.
      if (transport.name === "polling") transport.readyState = "closed";
      this.#agent.drop(reset);
      await sleep(1);
      // Between two polls there was no connection whose end it could notice.
      if (transport.name === "polling" && engine.readyState !== "closed") transport.onError("xhr poll error", 0);
    }
    return true;
  }

  // The next connection goes to `url`; everything that the socket knows stays (Manager.open reads `uri` each time).
  async reconnectTo(url, reset) {
    this.manager.uri = url;
    await this.drop(reset);
    if (!this.socket.active) this.socket.connect();
  }

  connect() {
    this.socket.connect();
  }

  async close() {
    this.socket.disconnect();
    for (let waited = 0; this.#agent.open > 0 && waited < CLOSE_MS; waited += 5) await sleep(5);
    this.#agent.drop(false);
    this.#agent.destroy();
    this.#changed();
  }

  // One Socket.IO packet as text, inside an Engine.IO message packet.
  sendPacket(data) {
    this.manager.engine.write(data);
  }

  // One WebSocket message, or the whole body of one POST, as it is.
  async sendFrame(data) {
    const transport = this.manager.engine.transport;
    if (transport.name === "websocket") await new Promise((resolve) => transport.ws.send(data, resolve));
    else transport.doWrite(data, () => {});
  }

  // Bytes on the TCP connection of a WebSocket.
  async sendBytes(data) {
    const connection = this.manager.engine.transport.ws._socket;
    await new Promise((resolve) => connection.write(data, resolve));
  }

  // Stop or go on reading from the TCP connection of a WebSocket: a slow client.
  setReading(reading) {
    const { ws } = this.manager.engine.transport;
    if (reading) ws.resume();
    else ws.pause();
  }

  wait(conditions, timeoutMs) {
    const { version, ...rest } = conditions;
    const holds = () =>
      (version === undefined || this.version > version) &&
      Object.entries(rest).every(([name, value]) => CONDITIONS[name](this, value));
    return new Promise((resolve, reject) => {
      const waiter = { holds, done: null };
      const timer = setTimeout(() => {
        this.#waiters.delete(waiter);
        reject(new Error("timeout"));
      }, timeoutMs);
      waiter.done = () => {
        this.#waiters.delete(waiter);
        clearTimeout(timer);
        if (version === undefined) resolve(true);
        else setTimeout(() => resolve(true), CHANGE_MS);
      };
      this.#waiters.add(waiter);
      if (holds()) waiter.done();
    });
  }

  // socket.timeout().emitWithAck(), which old clients do not have.
  #emitWithAck(event, args, timeoutMs) {
    if (this.socket.timeout) return this.socket.timeout(timeoutMs).emitWithAck(event, ...args);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("operation has timed out")), timeoutMs);
      this.socket.emit(event, ...args, (answer) => {
        clearTimeout(timer);
        resolve(answer);
      });
    });
  }

  // ---- what happens to it

  #auth(given) {
    const auth = { ...given, ...this.#track.auth };
    this.#lastAuth = Object.keys(auth).length > 0 ? auth : null;
    return this.#lastAuth ?? undefined;
  }

  // What socket.io-client adds to `auth` by itself.
  #resumption() {
    const { _pid: pid, _lastOffset: offset } = this.socket;
    return pid ? { pid, offset } : {};
  }

  #listen() {
    const { socket, manager } = this;
    manager.on("open", () => {
      manager.engine.on("upgrade", () => this.#changed());
      if (this.#recovery) this.#lastAuth = { ...this.#resumption(), ...RECOVERY };
    });
    socket.on("connect", () => {
      this.order.push("connect");
      this.connects.push({
        id: socket.id,
        pid: socket._pid ?? null,
        recovered: Boolean(socket.recovered),
        transport: this.transport,
        auth: this.#lastAuth,
        at: now(),
      });
      this.#changed();
    });
    socket.on("disconnect", (reason) => {
      this.order.push(`disconnect:${reason}`);
      this.disconnects.push({ reason, at: now() });
      this.#changed();
    });
    socket.on("connect_error", (error) => {
      this.order.push(`connect_error:${error.message}`);
      this.connectErrors.push({ message: error.message, data: error.data ?? null, at: now() });
      this.#changed();
    });
    socket.onAny((event, ...all) => {
      const args = all.filter((arg) => typeof arg !== "function");
      if (event === "message") this.#message(args);
      else this.#event(event, args);
      this.#changed();
    });
  }

  #message(args) {
    const [message, ...extra] = args;
    const record = { message, extra, at: now(), kept: false };
    this.order.push(`message:${message?.id}`);
    this.raw.push(record);
    if (this.#reloading) this.#held.push(record);
    else record.kept = this.#take(message);
  }

  #event(event, args) {
    const [payload, ...extra] = args;
    this.order.push(event);
    if (event === "session") {
      this.sessions.push({ ...payload, extra, at: now() });
      const first = payload.recovered === null && this.#reload === "always";
      const lost = this.#track.session(payload, Boolean(this.#reload) && (first || payload.recovered !== null));
      if (this.#reload && (lost || first)) this.#load(payload);
    } else if (event === "reset") {
      this.resets.push({ ...payload, extra, at: now() });
      const lost = this.#track.reset(payload, Boolean(this.#reload));
      if (this.#reload && lost) this.#load(payload);
    } else {
      this.events.push({ event, args, at: now() });
    }
  }

  #take(message) {
    const id = message?.id;
    if (Number.isInteger(id) && !this.#track.accept(id)) return false;
    this.ids.push(id ?? null);
    this.#kept.add(id ?? null);
    this.messages.push(message);
    return true;
  }

  async #load({ last_id: lastId }) {
    const token = {};
    this.#reloading = token;
    this.#held = []; // the history has them
    while (this.#reloading === token) {
      try {
        const answer = await fetch(new URL(`/messages?at_least=${lastId}`, this.manager.uri));
        if (!answer.ok) throw new Error(`status ${answer.status}`);
        const history = await answer.json();
        if (this.#reloading === token) this.#loaded(history);
      } catch (error) {
        this.reloadErrors.push(String(error.cause?.message ?? error.message));
        this.#changed();
        await sleep(RELOAD_RETRY_MS);
      }
      if (!this.socket.active) this.#reloading = null;
    }
  }

  #loaded(history) {
    const held = this.#held;
    this.#held = [];
    this.#reloading = null;
    const known = new Set(history.map(({ id }) => id));
    for (const message of history.reverse()) if (!(message.id <= this.#track.newest)) this.#take(message);
    // What came live while the history was on its way is in it, too: no duplicate of the server's.
    for (const record of held) if (!known.has(record.message?.id)) record.kept = this.#take(record.message);
    this.reloads += 1;
    this.#changed();
  }

  #changed() {
    this.version += 1;
    for (const waiter of this.#waiters) if (waiter.holds()) waiter.done();
  }
}

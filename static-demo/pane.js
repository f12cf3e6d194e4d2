// One client with a connection of its own: its messages, what it sends, how it is connected.
import { ChatClient, newNonce } from "./client.js";
import { element, labelled } from "./dom.js";
import { MessageList } from "./message-list.js";
import { Panel } from "./panel.js";
import { dropConnection, TRANSPORTS, transportNow } from "./transports.js";

const kept = (name, make) => {
  const value = localStorage.getItem(name) ?? make();
  localStorage.setItem(name, value);
  return value;
};

export class Pane {
  offline = false;
  #state = "connecting";
  #session = null;
  #reconnections = -1;
  #roundTrip = null;
  #transport = "upgrade";
  #leaving = false;
  #awaited = new Map(); // nonce -> resolve
  #observers;

  // observers: told of all that happens here, see app.js. remove(pane): the person does not want it any more.
  constructor(number, { observers, remove }) {
    this.number = number;
    this.title = `Client ${number}`;
    this.#observers = observers;
    this.uid = kept(`uid-${number}`, () => `guest-${newNonce().slice(0, 4)}`);
    this.messages = new MessageList({
      uid: this.uid,
      loadOlder: (before, limit) => this.client.history({ before, limit }),
      resend: (draft) => this.#deliver(draft),
    });
    this.panel = new Panel(`Connection of client ${number}`, () => this.status());
    this.element = this.#build(remove);
    this.client = new ChatClient({
      connect: (auth) => this.#connect(auth),
      onMessage: (message, { live }) => {
        this.messages.add(message);
        this.#awaited.get(message.nonce)?.();
        this.#observers.notify("shown", this, message, live);
        this.panel.changed();
      },
      onReset: () => {
        this.messages.clear();
        this.panel.changed();
      },
      onAnswer: (draft, answer, milliseconds) => {
        if (answer.ok || answer.error.code !== "no_answer") this.#roundTrip = milliseconds;
        this.#observers.notify("answered", this, draft, answer, milliseconds);
        this.panel.changed();
      },
    });
  }

  get connected() {
    return this.client.socket?.connected ?? false;
  }

  get plain() {
    return this.#transport === "plain";
  }

  status() {
    const { epoch, last, counts } = this.client ?? { counts: {} };
    return {
      state: this.#state,
      transport: transportNow(this.client?.socket),
      instance: this.#session?.instance ?? (this.plain ? "not told by /ws" : null),
      epoch,
      last,
      roundTrip: this.#roundTrip === null ? "nothing sent yet" : `${this.#roundTrip.toFixed(1)} ms`,
      reconnections: Math.max(0, this.#reconnections),
      ...counts,
    };
  }

  // Publishes; what becomes of it is shown among the messages.
  send(text) {
    const title = this.name.value.trim();
    return this.#deliver({ nonce: newNonce(), text, uid: this.uid, ...(title && { title }) });
  }

  // Once the message with this nonce has arrived here, or after `milliseconds`.
  seen(nonce, milliseconds = 3000) {
    return new Promise((resolve) => {
      this.#awaited.set(nonce, resolve);
      setTimeout(resolve, milliseconds);
    }).finally(() => this.#awaited.delete(nonce));
  }

  close() {
    this.#leaving = true;
    this.client.close();
    this.element.remove();
  }

  async #deliver(draft) {
    const { nonce } = draft;
    this.messages.pending(draft);
    this.#observers.notify("sending", this, draft);
    const onTrouble = (error) => this.messages.trouble(nonce, `${error.code}: ${error.message}; trying again`);
    // A nonce is good for 10 minutes; a later retry is safe, too: had it been stored, it would have arrived here.
    const answer = await this.client.publish(draft, { patience: 8000, onTrouble });
    if (answer.ok) this.messages.acknowledged(nonce, answer.id);
    else this.messages.failed(nonce, `${answer.error.code}: ${answer.error.message}`);
    return answer;
  }

  #connect(auth) {
    let position = {};
    const socket = TRANSPORTS[this.#transport].connect((send) => auth((now) => send((position = now))));
    socket.on("connect", () => {
      this.#reconnections++;
      this.#changed("connected");
    });
    socket.on("disconnect", (reason, details) => {
      this.#observers.notify("disconnected", this, { reason, code: details?.code, wanted: this.offline || this.#leaving });
      this.#changed(this.offline ? "offline" : `disconnected (${reason}), trying again`);
    });
    socket.on("connect_error", (error) => {
      this.#changed(`not connected: ${error.message}${socket.active ? ", trying again" : ""}`);
    });
    const begun = (event) => (session) => {
      this.#session = { ...this.#session, ...session };
      if (session.limits) this.messages.capacity = session.limits.history;
      this.#observers.notify(event, this, session, position);
      this.panel.changed();
    };
    socket.on("session", begun("session"));
    socket.on("reset", begun("reset"));
    socket.on("message", (message) => this.#observers.notify("received", this, message));
    socket.io?.on("open", () => socket.io.engine.on("upgrade", () => this.panel.changed()));
    return socket;
  }

  get limits() {
    return this.#session?.limits ?? { message_bytes: 4096, history: 1000 };
  }

  #changed(state) {
    this.#state = state;
    this.badge.textContent = state;
    this.badge.dataset.good = this.connected;
    this.panel.changed();
  }

  #build(remove) {
    const { number } = this;
    this.badge = element("p", { className: "badge", role: "status" }, this.#state);
    this.name = element("input", { maxLength: 128, autocomplete: "nickname", value: kept(`name-${number}`, () => "") });
    this.name.onchange = () => localStorage.setItem(`name-${number}`, this.name.value);
    this.text = element("textarea", { rows: 1, required: true, placeholder: "Enter sends" });
    const form = element(
      "form",
      { className: "composer" },
      labelled("Name", this.name, { className: "name" }),
      labelled("Message", this.text, { className: "wide" }),
      element("button", { className: "primary" }, "Send"),
    );
    form.onsubmit = (event) => {
      event.preventDefault();
      if (!this.text.value.trim()) return;
      this.send(this.text.value);
      this.text.value = "";
    };
    this.text.onkeydown = (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      form.requestSubmit();
    };
    const removeButton = element("button", { type: "button", className: "small" }, `Remove client ${number}`);
    removeButton.onclick = () => remove(this);
    return element(
      "section",
      { className: "pane", "aria-label": this.title },
      element("header", {}, element("h2", {}, this.title), this.badge, removeButton),
      this.messages.element,
      form,
      this.#buildConnection(),
    );
  }

  #buildConnection() {
    const transport = element("select");
    for (const [value, { label }] of Object.entries(TRANSPORTS)) transport.add(new Option(label, value));
    transport.onchange = () => {
      this.#transport = transport.value;
      this.#setOffline(false);
      this.#leaving = true;
      this.client.use((auth) => this.#connect(auth));
      this.#leaving = false;
      this.#changed("connecting");
    };
    const drop = element("button", { type: "button" }, "Drop connection");
    drop.onclick = () => dropConnection(this.client.socket);
    this.awayButton = element("button", { type: "button" }, "Go offline");
    this.awayButton.onclick = () => {
      this.#setOffline(!this.offline);
      if (this.offline) this.client.socket.disconnect();
      else this.client.socket.connect();
    };
    const controls = element("div", { className: "row" }, labelled("Transport", transport), drop, this.awayButton);
    // A phone shows the messages first.
    const open = matchMedia("(min-width: 48rem)").matches;
    return element("details", { open }, element("summary", {}, "Connection"), controls, this.panel.element);
  }

  #setOffline(offline) {
    this.offline = offline;
    this.awayButton.textContent = offline ? "Come back" : "Go offline";
  }
}

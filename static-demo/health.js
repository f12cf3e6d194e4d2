// How the server is, in one line: what /readyz says, and what became of the last message.
import { setText } from "./dom.js";

const EVERY_MS = 1000;
const REQUEST_MS = 3000;
// After 10 s without Redis the server itself says that it is not ready.
const REMEMBER_MS = 12_000;

export class Health {
  #line;
  #observers;
  #unavailable = null; // {at, message}: Redis was away when something was published
  last = "not asked yet";

  constructor(line, observers) {
    this.#line = line;
    this.#observers = observers;
    this.#ask();
  }

  answered(_pane, _draft, { ok, error }) {
    if (ok) this.#unavailable = null;
    else if (error.code === "unavailable") this.#unavailable = { at: Date.now(), message: error.message };
    else return;
    this.#show();
  }

  shown(_pane, _message, live) {
    if (live && this.#unavailable) {
      this.#unavailable = null;
      this.#show();
    }
  }

  async #ask() {
    if (!document.hidden) {
      this.#state = await readiness();
      this.#observers.notify("health", this.#state);
      this.#show();
    }
    setTimeout(() => this.#ask(), EVERY_MS);
  }

  #state = null;

  #show() {
    if (this.#unavailable && Date.now() - this.#unavailable.at > REMEMBER_MS) this.#unavailable = null;
    const { reachable, ready, reason } = this.#state ?? {};
    let text = "Server ready";
    if (!this.#state) text = "Asking the server";
    else if (!reachable) text = "Server out of reach, trying again";
    else if (!ready) text = `Server not ready: ${reason}`;
    else if (this.#unavailable) text = `Publishing is unavailable: ${this.#unavailable.message}`;
    this.last = text;
    this.#line.dataset.good = text === "Server ready";
    setText(this.#line, text);
  }
}

async function readiness() {
  try {
    const answer = await fetch("/readyz", { cache: "no-store", signal: AbortSignal.timeout(REQUEST_MS) });
    const { reason } = await answer.json();
    return { reachable: true, ready: answer.ok, reason };
  } catch {
    return { reachable: false, ready: false, reason: "no answer" };
  }
}

// Which of the promises G1 to G9 were seen kept or broken on this page. Nothing counts as kept without evidence,
// and what was broken once stays broken.

const MANY = 10; // messages that make an observation of order
const REMEMBERED = 3000;
// G6 says 2 s; the way there and back comes on top.
const UNAVAILABLE_MS = 2500;

export const TITLES = {
  G1: "One order for all",
  G2: "No gaps",
  G3: "Reconnecting loses and doubles nothing",
  G4: "Acknowledged is stored",
  G5: "Retrying is safe",
  G6: "Redis away",
  G7: "Slow clients cost others nothing",
  G8: "Stopping",
  G9: "Bad input",
};
const HOW = {
  G1: "Needs two clients and 10 messages.",
  G2: "Needs 10 live messages.",
  G3: "Drop a connection while messages arrive.",
  G4: "Send a message.",
  G5: "Send one message twice.",
  G6: "Stop Redis, send, start it again, send.",
  G7: "Try a slow client.",
  G8: "Stop the server, and have it or another one serve.",
  G9: "Send every kind of bad input.",
};

export class Promises {
  #changed;
  #history;
  #verdicts = new Map(Object.keys(TITLES).map((id) => [id, { state: "open", evidence: HOW[id] }]));
  #clients = new Map(); // pane -> what it has seen over its present connection
  #log = newLog(null);
  #away = null; // Redis, since a publish was answered `unavailable`
  #stopping = null; // {clients, count}: the instance said so, and these were not moved yet

  // changed(): a verdict is another one. history(selection): GET /messages, oldest first.
  constructor({ changed, history }) {
    this.#changed = changed;
    this.#history = history;
  }

  get verdicts() {
    return [...this.#verdicts].map(([id, verdict]) => ({ id, title: TITLES[id], ...verdict }));
  }

  keep(id, evidence) {
    this.#decide(id, "kept", evidence);
  }

  breaks(id, evidence) {
    this.#decide(id, "broken", evidence);
  }

  session(pane, { epoch, last_id, recovered, replayed }, { after }) {
    if (epoch !== this.#log.epoch) this.#log = newLog(epoch);
    const last = recovered ? after : last_id;
    const client = { last, live: 0, common: 0, from: last_id, replay: null };
    if (recovered && replayed > 0) client.replay = { count: replayed, until: after + replayed };
    this.#clients.set(pane, client);
    if (this.#stopping?.clients.delete(pane)) this.#moved(pane, recovered);
  }

  reset(pane, { epoch, last_id }) {
    this.session(pane, { epoch, last_id, recovered: false, replayed: 0 }, {});
  }

  received(pane, message) {
    const client = this.#clients.get(pane);
    if (!client) return;
    const { id } = message;
    if (id <= client.last) this.breaks("G1", `${pane.title} got #${id} after #${client.last}.`);
    else if (id > client.last + 1) this.breaks("G2", `${pane.title} got #${id} right after #${client.last}.`);
    client.last = Math.max(client.last, id);
    this.#compare(pane, client, message);
    if (id > client.from && ++client.live >= MANY) {
      this.keep("G2", `${pane.title} received all of #${client.from + 1} to #${id}.`);
    }
    if (client.replay && id >= client.replay.until) {
      this.keep("G3", `${pane.title} came back and was sent the ${client.replay.count} messages that it had missed, each once.`);
      client.replay = null;
    }
    this.#checkAcknowledged(id);
  }

  answered(pane, { nonce }, answer, milliseconds) {
    if (answer.ok) {
      if (answer.duplicate) this.#repeated(nonce, answer.id);
      this.#log.acknowledged.set(answer.id, nonce);
      this.#checkAcknowledged(answer.id);
      if (this.#away) this.#back();
    } else if (answer.error.code === "unavailable") this.#unavailable(pane, milliseconds);
  }

  disconnected(pane, { wanted }) {
    this.#clients.delete(pane);
    if (wanted) this.#stopping?.clients.delete(pane);
    else if (this.#away) this.#away.dropped = true;
  }

  removed(pane) {
    this.#clients.delete(pane);
    this.#stopping?.clients.delete(pane);
  }

  health({ reachable, reason }) {
    if (reachable && reason === "shutting down" && !this.#stopping && this.#clients.size > 0) {
      this.#stopping = { clients: new Set(this.#clients.keys()), count: this.#clients.size };
    }
  }

  #decide(id, state, evidence) {
    const verdict = this.#verdicts.get(id);
    if (verdict.state === "broken" || (verdict.state === state && state === "kept")) return;
    this.#verdicts.set(id, { state, evidence });
    this.#changed();
  }

  // The same id is the same message for all.
  #compare(pane, client, message) {
    const { messages, nonces } = this.#log;
    const { id, nonce } = message;
    const text = JSON.stringify(message);
    const known = messages.get(id);
    if (known === undefined) {
      messages.set(id, { text, seenBy: new Set([pane]) });
      if (messages.size > REMEMBERED) messages.delete(messages.keys().next().value);
    } else {
      known.seenBy.add(pane);
      if (known.text !== text) this.breaks("G1", `#${id} is not the same message for ${pane.title} as for another client.`);
      else if (++client.common === MANY) this.#compareHistory();
    }
    if (nonce === undefined) return;
    if ((nonces.get(nonce) ?? id) !== id) this.breaks("G5", `#${nonces.get(nonce)} and #${id} are the same message.`);
    nonces.set(nonce, id);
    if (nonces.size > REMEMBERED) nonces.delete(nonces.keys().next().value);
  }

  async #compareHistory() {
    const { messages } = this.#log;
    const history = await this.#history({ limit: MANY }).catch(() => []);
    if (history.length < MANY) return;
    const same = history.every((message) => (messages.get(message.id)?.text ?? JSON.stringify(message)) === JSON.stringify(message));
    const rising = history.every(({ id }, n) => n === 0 || id === history[n - 1].id + 1);
    if (same && rising) this.keep("G1", `${this.#clients.size} clients and the history agree on order and content.`);
    else this.breaks("G1", "The history differs from what the clients received.");
  }

  async #checkAcknowledged(id) {
    const { acknowledged, messages } = this.#log;
    const seenBy = messages.get(id)?.seenBy;
    if (!acknowledged.has(id) || !seenBy || ![...this.#clients.keys()].every((pane) => seenBy.has(pane))) return;
    acknowledged.delete(id);
    if (this.#verdicts.get("G4").state !== "open") return;
    const [stored] = await this.#history({ before: id + 1, at_least: id, limit: 1 }).catch(() => []);
    if (stored?.id === id) this.keep("G4", `#${id} was acknowledged, reached every client here, and is in the history.`);
  }

  async #repeated(nonce, id) {
    const known = this.#log.nonces.get(nonce);
    if (known === undefined) return; // not seen here yet: no evidence
    if (known === id) this.keep("G5", `A message that was sent twice is #${id} both times, and stored once.`);
    else this.breaks("G5", `A message that was sent twice is #${known} and #${id}.`);
  }

  async #unavailable(pane, milliseconds) {
    if (milliseconds > UNAVAILABLE_MS) {
      this.breaks("G6", `"unavailable" took ${(milliseconds / 1000).toFixed(1)} s.`);
    }
    this.#away ??= { dropped: false, milliseconds, history: 0 };
    const away = this.#away;
    away.history = (await this.#history({ limit: 1 }).catch(() => [])).length;
  }

  #moved(pane, recovered) {
    if (!recovered) this.breaks("G8", `${pane.title} was moved and could not go on where it was.`);
    const { clients, count } = this.#stopping;
    if (clients.size > 0) return;
    this.#stopping = null;
    this.keep("G8", `The instance said that it was shutting down; ${count} clients were moved, came back by themselves and went on.`);
  }

  #back() {
    const { dropped, milliseconds, history } = this.#away;
    this.#away = null;
    if (dropped || !history) return;
    const seconds = (milliseconds / 1000).toFixed(1);
    this.keep("G6", `"unavailable" came after ${seconds} s, the history could be read, nobody was disconnected, and publishing works again.`);
  }
}

function newLog(epoch) {
  return { epoch, messages: new Map(), nonces: new Map(), acknowledged: new Map() };
}

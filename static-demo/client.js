// Receives every message of a ditochat once and in order, and publishes each once, whatever the connection does.
// Copy it; it needs nothing but the socket that `connect` returns, socket.io-client's or one like it:
//
//   const client = new ChatClient({ connect: (auth) => io(url, { auth }), url, onMessage: (message) => show(message) });
//   const answer = await client.publish({ text: "hello" }); // {ok: true, id} or {ok: false, error: {code, message}}
//   const older = await client.history({ before: oldestShown, limit: 100 }); // oldest first

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
// Not randomUUID: that one exists on https and localhost only.
export const newNonce = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("-");

export class ChatClient {
  epoch = null; // which life of the log the ids belong to
  last = 0; // the newest id that was handed on
  counts = { replayed: 0, duplicates: 0, gaps: 0, expired: 0 };
  #socket = null;
  #turn = 0;
  #work = Promise.resolve();

  // onReset: forget all messages, another life of the log begins; onAnswer: what each attempt to publish brought.
  constructor({ connect, url = "", firstLoad = 100, onMessage, onReset = () => {}, onAnswer = () => {} }) {
    Object.assign(this, { url, firstLoad, onMessage, onReset, onAnswer });
    this.use(connect);
  }

  get socket() {
    return this.#socket;
  }

  // Go on over another connection; the position stays.
  use(connect) {
    this.close();
    const socket = connect((send) => send(this.epoch ? { after: this.last, epoch: this.epoch } : {}));
    this.#socket = socket;
    // What came before a newer session began is void: that one tells it again, from the last message handed on.
    const inOrder = (step, turn = this.#turn) => {
      const current = () => turn === this.#turn;
      this.#work = this.#work.then(() => current() && step(current));
    };
    const begin = (session) => (this.#turn++, inOrder((current) => this.#start(session, current)));
    socket.on("session", begin);
    socket.on("reset", begin);
    socket.on("message", (message) => inOrder(() => this.#take(message)));
  }

  close() {
    this.#turn++;
    this.#socket?.disconnect();
    this.#socket = null;
  }

  // Sends until there is an answer or `patience` is over; under one nonce, so it is stored once. To go on with a
  // message that failed, publish it again with its nonce.
  async publish(message, { patience = 10_000, onTrouble = () => {} } = {}) {
    const named = { nonce: newNonce(), ...message };
    for (const start = performance.now(); this.#socket; ) {
      const sent = performance.now();
      const error = { code: "no_answer", message: "no answer yet" };
      const answer = await this.#socket.timeout(3000).emitWithAck("message", named).catch(() => ({ ok: false, error }));
      this.onAnswer(named, answer, performance.now() - sent);
      if (answer.ok || !["no_answer", "unavailable"].includes(answer.error.code)) return answer;
      const wait = 1000 * (answer.error.retry_after ?? 0.5);
      if (performance.now() + wait - start > patience) return answer;
      onTrouble(answer.error);
      await pause(wait);
    }
    return { ok: false, error: { code: "closed", message: "this client was closed" } };
  }

  async history(selection) {
    const answer = await fetch(`${this.url}/messages?${new URLSearchParams(selection)}`);
    if (!answer.ok) throw new Error(`the history is not to be had: ${answer.status}`);
    return (await answer.json()).reverse();
  }

  async #start({ epoch, last_id, recovered, replayed }, current) {
    if (recovered) return void (this.counts.replayed += replayed); // what was missed follows by itself
    while (current()) {
      const fresh = epoch !== this.epoch;
      const part = fresh ? { limit: this.firstLoad } : { after: this.last };
      const messages = await this.history({ ...part, before: last_id + 1, at_least: last_id }).catch(() => null);
      if (!current()) return;
      if (messages === null) await pause(500);
      else {
        if (!fresh) this.counts.expired += last_id - this.last - messages.length; // more was missed than is kept
        [this.epoch, this.last] = [epoch, last_id];
        if (fresh) this.onReset();
        return messages.forEach((message) => this.onMessage(message, { live: false }));
      }
    }
  }

  #take(message) {
    if (message.id <= this.last) return void this.counts.duplicates++;
    this.counts.gaps += message.id - this.last - 1;
    this.last = message.id;
    this.onMessage(message, { live: true });
  }
}

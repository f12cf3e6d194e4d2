// What a screen reader says of new messages: each one while there are few, their number while there are many.
const EVERY_MS = 1000;
const LONGEST = 200; // characters

export class Announcer {
  #region;
  #pane;
  #waiting = [];
  #timer = 0;

  // pane(): the client whose messages are read; several would say the same.
  constructor(region, pane) {
    this.#region = region;
    this.#pane = pane;
  }

  shown(pane, message, live) {
    if (!live || pane !== this.#pane() || message.uid === pane.uid) return;
    this.#waiting.push(message);
    this.#timer ||= setTimeout(() => this.#say(), EVERY_MS);
  }

  #say() {
    this.#timer = 0;
    const messages = this.#waiting.splice(0);
    const [{ title, uid, text }] = messages;
    const one = `${title || uid || "somebody"}: ${text}`.slice(0, LONGEST);
    this.#region.textContent = messages.length === 1 ? one : `${messages.length} new messages`;
  }
}

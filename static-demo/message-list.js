// The messages of one client: stored ones in order, and below them its own that are not stored yet.
import { element, nextFrame, setText } from "./dom.js";
import { withLinks } from "./links.js";

const CHUNK = 60; // messages built in one frame: some milliseconds
const AT_END = 40; // pixels
const NEAR_START = 200; // pixels
const OLDER = 100; // messages loaded at once
const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const DATE_AND_CLOCK = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export class MessageList {
  capacity = 1000;
  #queue = []; // arrived, not yet shown
  #own = new Map(); // nonce -> what is shown of a message that is not stored yet
  #uid;
  #loadOlder;
  #resend;
  #stuck = true; // to the end
  #top = 0; // pixels
  #unread = 0;
  #loading = false;
  #complete = false; // nothing older is kept

  // loadOlder(id, count): older messages, oldest first. resend(draft): the person wants it sent again.
  constructor({ uid, loadOlder, resend }) {
    this.#uid = uid;
    this.#loadOlder = loadOlder;
    this.#resend = resend;
    this.start = element("p", { className: "note" });
    this.list = element("ol", { "aria-label": "Stored messages" });
    this.outbox = element("ol", { "aria-label": "Messages not stored yet", className: "outbox", hidden: true });
    // Not a live region: a burst would be read aloud for minutes. What is announced is up to the page.
    this.scroller = element(
      "div",
      { className: "messages", role: "log", "aria-label": "Messages", "aria-live": "off", tabIndex: 0 },
      this.start,
      this.list,
      this.outbox,
    );
    this.unreadButton = element("button", { type: "button", className: "unread", hidden: true });
    this.unreadButton.onclick = () => this.#toEnd();
    this.scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => this.#stuck && this.#toEnd()).observe(this.scroller);
    this.element = element("div", { className: "message-area" }, this.scroller, this.unreadButton);
  }

  add(message) {
    this.#queue.push(message);
    nextFrame(this.#flush);
  }

  clear() {
    this.#queue = [];
    this.list.replaceChildren();
    this.#complete = false;
    this.#unread = 0;
    nextFrame(this.#flush);
  }

  // An own message is on its way; draft: {nonce, text}.
  pending(draft) {
    const shown = this.#own.get(draft.nonce) ?? { draft };
    shown.state = "pending";
    shown.problem = "";
    this.#own.set(draft.nonce, shown);
    this.#stuck = true; // who sends wants to see it
    nextFrame(this.#flush);
  }

  trouble(nonce, problem) {
    this.#change(nonce, { problem });
  }

  failed(nonce, problem) {
    this.#change(nonce, { state: "failed", problem });
  }

  // It has its id; its place it gets when it arrives in its turn.
  acknowledged(nonce, id) {
    this.#change(nonce, { state: "acknowledged", id, problem: "" });
  }

  get size() {
    return this.list.children.length + this.#queue.length;
  }

  #change(nonce, change) {
    const shown = this.#own.get(nonce);
    if (shown) Object.assign(shown, change);
    nextFrame(this.#flush);
  }

  #flush = () => {
    if (this.#queue.length > this.capacity) {
      // Whatever is shown now would be gone before anybody has read it.
      this.#queue.splice(0, this.#queue.length - this.capacity);
      this.list.replaceChildren();
      this.#complete = false;
    }
    const batch = this.#queue.splice(0, CHUNK);
    for (const { nonce } of batch) if (nonce) this.#arrived(nonce);
    this.list.append(...batch.map((message) => this.#item(message)));
    if (this.#stuck) this.#trim();
    else this.#unread += batch.length;
    this.#showOwn();
    this.#showNotes();
    if (this.#queue.length > 0) nextFrame(this.#flush);
    if (this.#stuck) this.#toEnd();
  };

  #arrived(nonce) {
    const shown = this.#own.get(nonce);
    this.#own.delete(nonce);
    if (!shown?.item) return;
    if (shown.item.contains(document.activeElement)) this.scroller.focus();
    shown.item.remove();
  }

  #trim() {
    for (let surplus = this.list.children.length - this.capacity; surplus > 0; surplus--) {
      this.list.firstElementChild.remove();
      this.#complete = false;
    }
  }

  #showOwn() {
    for (const shown of this.#own.values()) {
      const looks = `${shown.state} ${shown.id} ${shown.problem}`;
      if (shown.looks === looks) continue;
      shown.looks = looks;
      if (!shown.item) {
        shown.note = element("span", { className: "state" });
        shown.retry = element("button", { type: "button", className: "small" }, "Send again");
        shown.retry.onclick = () => {
          this.scroller.focus();
          this.#resend(shown.draft);
        };
        shown.item = element(
          "li",
          { className: "own" },
          element("p", { className: "text" }, ...withLinks(shown.draft.text)),
          element("p", { className: "meta" }, shown.note, shown.retry),
        );
        this.outbox.append(shown.item);
      }
      shown.item.dataset.state = shown.state;
      shown.retry.hidden = shown.state !== "failed";
      const state = shown.state === "acknowledged" ? `stored as #${shown.id}` : shown.state;
      setText(shown.note, shown.problem ? `${state}: ${shown.problem}` : state);
    }
    this.outbox.hidden = this.#own.size === 0;
  }

  #showNotes() {
    const text = this.#loading ? "Loading older messages" : "This is the oldest message that is kept.";
    const empty = this.size === 0 && this.#own.size === 0;
    setText(this.start, empty ? "No messages yet. Say something." : this.#loading || this.#complete ? text : "");
    this.unreadButton.hidden = this.#unread === 0;
    setText(this.unreadButton, `${this.#unread} new message${this.#unread === 1 ? "" : "s"}`);
  }

  #item({ id, ts, uid, title, text }) {
    const own = uid === this.#uid;
    const when = new Date(ts);
    const clock = when.toDateString() === new Date().toDateString() ? CLOCK : DATE_AND_CLOCK;
    return element(
      "li",
      { className: own ? "own" : "", "data-id": id },
      element(
        "p",
        { className: "meta" },
        element("b", {}, String(title || uid || "somebody")),
        ...(own ? [" (you)"] : []),
        " ",
        element("time", { dateTime: when.toISOString() }, clock.format(when)),
        ` #${id}`,
        ...(own ? [element("span", { className: "state" }, " stored")] : []),
      ),
      element("p", { className: "text" }, ...withLinks(text)),
    );
  }

  #toEnd() {
    this.#stuck = true;
    this.#unread = 0;
    this.unreadButton.hidden = true;
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const atEnd = scrollHeight - scrollTop - clientHeight < AT_END;
    // Only who goes up goes away; on the way down to the end new messages may come in between.
    this.#stuck = atEnd || (this.#stuck && scrollTop >= this.#top);
    this.#top = scrollTop;
    if (atEnd && this.#unread > 0) this.#toEnd();
    if (scrollTop < NEAR_START && scrollHeight > clientHeight) this.#older();
  }

  async #older() {
    const first = this.list.firstElementChild;
    if (!first || this.#loading || this.#complete) return;
    this.#loading = true;
    this.#showNotes();
    const messages = await this.#loadOlder(Number(first.dataset.id), OLDER).catch(() => null);
    this.#loading = false;
    // Not where the list has begun anew meanwhile.
    if (messages && this.list.firstElementChild === first) {
      this.#complete = messages.length < OLDER;
      const fromEnd = this.scroller.scrollHeight - this.scroller.scrollTop;
      this.list.prepend(...messages.map((message) => this.#item(message)));
      this.#showNotes();
      this.scroller.scrollTop = this.scroller.scrollHeight - fromEnd;
    }
    this.#showNotes();
  }
}

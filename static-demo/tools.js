// The tools of a tester: more clients, bursts, bad input, retries, a slow client, the report.
import { KINDS, MARK, sendBadInput } from "./bad-input.js";
import { burst } from "./burst.js";
import { newNonce } from "./client.js";
import { element, labelled, setText } from "./dom.js";
import { trySlowClient } from "./slow-client.js";

export class Tools {
  badInputs = []; // {name, expected, got, message}
  #app;
  #leaked = 0;

  // app: {panes, addPane(), promises, delays(), report()}
  constructor(app) {
    this.#app = app;
    this.element = element(
      "section",
      { className: "tools", "aria-labelledby": "tools" },
      element("h2", { id: "tools" }, "QA tools"),
      this.#clients(),
      this.#burst(),
      this.#retry(),
      this.#badInput(),
      this.#slow(),
      this.#report(),
    );
  }

  // Bad input must reach nobody.
  received(_pane, { text, title }) {
    if (text?.startsWith?.(MARK) || title === MARK) this.#leaked++;
  }

  panesChanged() {
    const chosen = this.sender.value;
    this.sender.replaceChildren(...this.#app.panes.map(({ number, title }) => new Option(title, number)));
    if (this.#app.panes.some(({ number }) => String(number) === chosen)) this.sender.value = chosen;
  }

  #clients() {
    const add = button("Add client", () => this.#app.addPane());
    const note = element("p", { className: "note" }, "Each has its own connection. Drop it, take it offline and choose its transport there.");
    return group("Clients", add, note);
  }

  #burst() {
    const count = element("input", { type: "number", min: 1, max: 10_000, value: 1000, required: true });
    const rate = element("input", { type: "number", min: 1, max: 2000, value: 200, required: true });
    this.sender = element("select");
    const result = output();
    const progress = element("progress", { value: 0, max: 1, "aria-label": "Burst progress" });
    let running = null;
    const submit = element("button", {}, "Send burst");
    const form = element(
      "form",
      { className: "row" },
      labelled("Messages", count),
      labelled("Per second", rate),
      labelled("Sender", this.sender),
      submit,
    );
    form.onsubmit = async (event) => {
      event.preventDefault();
      if (running) return running.abort();
      const pane = this.#app.panes.find(({ number }) => String(number) === this.sender.value);
      if (!pane) return setText(result, "There is no client to send it.");
      running = new AbortController();
      submit.textContent = "Stop burst";
      setText(result, "Sending");
      progress.max = count.valueAsNumber;
      progress.value = 0;
      const { acknowledged, failed, seconds } = await burst(pane, {
        count: count.valueAsNumber,
        rate: rate.valueAsNumber,
        signal: running.signal,
        progress: (done) => (progress.value = done),
      });
      running = null;
      submit.textContent = "Send burst";
      setText(result, `${acknowledged} acknowledged, ${failed} failed, in ${seconds.toFixed(1)} s.`);
    };
    return group("Burst", form, progress, result);
  }

  #retry() {
    const result = output();
    const twice = button("Send one message twice", async () => {
      const pane = this.#app.panes[0];
      if (!pane) return setText(result, "There is no client to send it.");
      setText(result, "Sending");
      const draft = { nonce: newNonce(), text: "sent twice, stored once", uid: pane.uid, title: pane.name.value.trim() || "tester" };
      const arrival = pane.seen(draft.nonce);
      const first = await pane.client.publish(draft);
      await arrival;
      const second = await pane.client.publish(draft);
      setText(result, `First: ${inWords(first)}. Second: ${inWords(second)}.`);
    });
    return group("Retry", twice, result);
  }

  #badInput() {
    const kind = element("select");
    KINDS.forEach(({ name }, n) => kind.add(new Option(name, n)));
    const rows = element("tbody");
    const table = element(
      "table",
      { className: "results", "aria-label": "Bad input results", hidden: true },
      element("thead", {}, element("tr", {}, ...["Kind", "Expected", "Got"].map((text) => element("th", { scope: "col" }, text)))),
      rows,
    );
    const result = output();
    const send = async (kinds) => {
      table.hidden = false;
      for (const one of kinds) {
        const outcome = { name: one.name, expected: one.expected, ...(await sendBadInput(one, this.#app.limits())) };
        this.badInputs.push(outcome);
        const good = outcome.got === outcome.expected;
        rows.prepend(
          element(
            "tr",
            { "data-state": good ? "kept" : "broken" },
            element("th", { scope: "row" }, one.name),
            element("td", {}, one.expected),
            element("td", {}, `${good ? "✓" : "✗"} ${outcome.got}: ${outcome.message}`),
          ),
        );
      }
      setText(result, await this.#judge());
    };
    const controls = element(
      "div",
      { className: "row" },
      labelled("Kind of bad input", kind),
      button("Send bad input", () => send([KINDS[kind.value]])),
      button("Send every kind", () => send(KINDS)),
    );
    const scroller = element("div", { className: "scroller", tabIndex: 0, role: "region", "aria-label": "Results of bad input" }, table);
    return group("Bad input", controls, result, scroller);
  }

  async #judge() {
    const { promises } = this.#app;
    const wrong = this.badInputs.filter(({ expected, got }) => expected !== got);
    const kinds = new Set(this.badInputs.map(({ name }) => name)).size;
    if (this.#leaked > 0) promises.breaks("G9", `${this.#leaked} bad inputs reached a client.`);
    else if (wrong.length > 0) promises.breaks("G9", `"${wrong[0].name}" was answered ${wrong[0].got}.`);
    else if (kinds === KINDS.length && this.#app.panes.some(({ connected }) => connected)) {
      const alive = await fetch("/healthz").catch(() => null);
      if (alive?.ok) promises.keep("G9", `${kinds} kinds got their error, none reached a client, and the server goes on.`);
    }
    return `${kinds} of ${KINDS.length} kinds sent, ${wrong.length} with another answer than expected.`;
  }

  #slow() {
    const result = output();
    const start = button("Try a slow client", async () => {
      start.disabled = true;
      try {
        const { kept, evidence } = await trySlowClient({ progress: (text) => setText(result, text), delays: this.#app.delays });
        if (kept) this.#app.promises.keep("G7", evidence);
        else this.#app.promises.breaks("G7", evidence);
        setText(result, evidence);
      } catch (error) {
        setText(result, `Not finished: ${error.message}`);
      }
      start.disabled = false;
    });
    const note = element("p", { className: "note" }, "Fills the history with 400 messages, 1.5 MB.");
    return group("Slow client", start, note, result);
  }

  #report() {
    const text = element("textarea", { readOnly: true, rows: 6, value: "" });
    const box = labelled("Report", text);
    box.hidden = true;
    const result = output();
    const copy = button("Copy report", async () => {
      text.value = this.#app.report();
      box.hidden = false;
      try {
        await navigator.clipboard.writeText(text.value);
        setText(result, "Copied.");
      } catch {
        // Not allowed, or not on https: the person copies it.
        text.select();
        setText(result, "Not copied by itself: it is selected below.");
      }
    });
    return group("Report", copy, result, box);
  }
}

function inWords({ ok, id, duplicate, error }) {
  if (!ok) return `${error.code}: ${error.message}`;
  return `stored as #${id}${duplicate ? ", duplicate" : ""}`;
}

function group(legend, ...children) {
  return element("fieldset", {}, element("legend", {}, legend), ...children);
}

function button(text, onclick) {
  return element("button", { type: "button", onclick }, text);
}

function output() {
  return element("p", { role: "status", className: "result" });
}

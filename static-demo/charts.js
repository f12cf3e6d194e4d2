// What the last minute was like: messages received a second, and how long they took.
import { element, setText } from "./dom.js";

const SECONDS = 60;
const WIDTH = 300;
const HEIGHT = 60;
const SVG = "http://www.w3.org/2000/svg";
const REMEMBERED = 5000; // messages on their way

export class Charts {
  #seconds = Array.from({ length: SECONDS }, newSecond);
  #sent = new Map(); // nonce -> when; this page's own clock, so no other clock can be wrong
  #rate = new BarChart("Messages received a second");
  #delay = new BarChart("Delay in milliseconds");

  constructor() {
    this.element = element(
      "section",
      { "aria-labelledby": "charts", className: "charts" },
      element("h2", { id: "charts" }, "The last minute"),
      this.#rate.element,
      this.#delay.element,
    );
    setInterval(() => this.#tick(), 1000);
    this.#show();
  }

  sending(_pane, { nonce }) {
    if (this.#sent.has(nonce)) return;
    this.#sent.set(nonce, performance.now());
    if (this.#sent.size > REMEMBERED) this.#sent.delete(this.#sent.keys().next().value);
  }

  received(_pane, { nonce }) {
    const second = this.#seconds.at(-1);
    second.received++;
    const sent = this.#sent.get(nonce);
    if (sent !== undefined) second.delays.push(performance.now() - sent);
  }

  // In milliseconds, of the last minute; null where there are none.
  delays() {
    const all = this.#seconds.flatMap(({ delays }) => delays).sort((a, b) => a - b);
    return all.length === 0 ? null : { count: all.length, median: quantile(all, 0.5), p99: quantile(all, 0.99) };
  }

  get summary() {
    return `${this.#rate.summary} ${this.#delay.summary}`;
  }

  #tick() {
    if (!document.hidden) this.#show();
    this.#seconds.shift();
    this.#seconds.push(newSecond());
  }

  #show() {
    const rates = this.#seconds.map(({ received }) => received);
    this.#rate.show(rates, `Now ${rates.at(-1)}, at most ${Math.max(...rates)} a second, by all clients of this page.`);
    const delays = this.#seconds.map((second) => quantile(second.delays.sort((a, b) => a - b), 0.5));
    const all = this.delays();
    const words = all && `Half within ${all.median.toFixed(1)} ms, 99 % within ${all.p99.toFixed(1)} ms, of ${all.count}.`;
    this.#delay.show(delays, words ?? "From sending to receiving, of what this page sends: nothing yet.");
  }
}

class BarChart {
  #bars = [];

  constructor(title) {
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.svg.setAttribute("preserveAspectRatio", "none");
    this.svg.setAttribute("role", "img");
    const width = WIDTH / SECONDS;
    for (let n = 0; n < SECONDS; n++) {
      const bar = document.createElementNS(SVG, "rect");
      bar.setAttribute("x", n * width + 0.5);
      bar.setAttribute("width", width - 1);
      this.#bars.push(bar);
    }
    this.svg.append(...this.#bars);
    this.title = title;
    this.words = element("p", { className: "note" });
    this.element = element("figure", {}, element("figcaption", {}, title, this.words), this.svg);
  }

  get summary() {
    return `${this.title}: ${this.words.textContent}`;
  }

  show(values, words) {
    const highest = Math.max(1, ...values);
    values.forEach((value, n) => {
      const height = value > 0 ? Math.max(1, (HEIGHT * value) / highest) : 0;
      this.#bars[n].setAttribute("height", height);
      this.#bars[n].setAttribute("y", HEIGHT - height);
    });
    setText(this.words, words);
    this.svg.setAttribute("aria-label", this.summary);
  }
}

function newSecond() {
  return { received: 0, delays: [] };
}

function quantile(sorted, part) {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0;
}

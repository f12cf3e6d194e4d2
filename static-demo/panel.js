// What is known of one client's connection.
import { element, nextFrame, setText } from "./dom.js";

const ROWS = {
  state: "State",
  transport: "Transport in use",
  instance: "Instance",
  epoch: "Epoch",
  last: "Last id",
  roundTrip: "Round trip",
  reconnections: "Reconnections",
  replayed: "Replayed",
  duplicates: "Duplicates dropped",
  gaps: "Gaps seen",
  expired: "Missed for good",
};

export class Panel {
  #read;
  #cells = {};

  // read(): the present values, by the names of the rows.
  constructor(label, read) {
    this.#read = read;
    const rows = Object.entries(ROWS).map(([name, title]) => {
      this.#cells[name] = element("td");
      return element("tr", {}, element("th", { scope: "row" }, title), this.#cells[name]);
    });
    this.element = element("table", { className: "panel", "aria-label": label }, element("tbody", {}, ...rows));
    this.changed();
  }

  changed() {
    nextFrame(this.#show);
  }

  #show = () => {
    const values = this.#read();
    for (const [name, cell] of Object.entries(this.#cells)) setText(cell, String(values[name] ?? "unknown"));
    this.#cells.gaps.classList.toggle("bad", values.gaps > 0);
  };
}

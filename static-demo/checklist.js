// The promises as a list that ticks itself.
import { element, nextFrame, setText } from "./dom.js";

const MARKS = { open: "○", kept: "✓", broken: "✗" };
const WORDS = { open: "not seen yet", kept: "kept", broken: "broken" };

export class Checklist {
  #items = new Map();
  #read;

  constructor(read) {
    this.#read = read;
    this.list = element("ul", { className: "checklist", "aria-label": "Promises" });
    this.element = element("section", { "aria-labelledby": "promises" }, element("h2", { id: "promises" }, "Promises"), this.list);
    this.changed();
  }

  changed() {
    nextFrame(this.#show);
  }

  #show = () => {
    for (const { id, title, state, evidence } of this.#read()) {
      const { item, mark, word, note } = this.#items.get(id) ?? this.#build(id, title);
      item.dataset.state = state;
      setText(mark, MARKS[state]);
      setText(word, WORDS[state]);
      setText(note, evidence);
    }
  };

  #build(id, title) {
    const mark = element("span", { className: "mark", "aria-hidden": "true" });
    const word = element("span", { className: "word" });
    const note = element("p", { className: "note" });
    const item = element("li", {}, mark, element("p", {}, element("b", {}, `${id} ${title}`), ": ", word), note);
    const built = { item, mark, word, note };
    this.#items.set(id, built);
    this.list.append(item);
    return built;
  }
}

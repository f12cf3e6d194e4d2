// Building elements, and changing them at most once a frame.

// element("button", { className: "quiet", onclick: go }, "Send"): properties, and children as nodes or text, so
// nothing is ever parsed as HTML. A name with a dash is an attribute.
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role" || name === "for") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children);
  return node;
}

// A control inside its label, so that each has a name.
export function labelled(text, control, properties = {}) {
  return element("label", properties, element("span", {}, text), control);
}

const jobs = new Set();

// Runs each job once in the next frame, however often it was asked for.
export function nextFrame(job) {
  if (jobs.size === 0) requestAnimationFrame(runJobs);
  jobs.add(job);
}

function runJobs() {
  const now = [...jobs];
  jobs.clear();
  for (const job of now) job();
}

export function setText(node, text) {
  // An unchanged live region stays silent.
  if (node.textContent !== text) node.textContent = text;
}

// The page: its clients, and around them what a tester needs.
import { Announcer } from "./announcer.js";
import { Charts } from "./charts.js";
import { Checklist } from "./checklist.js";
import { setText } from "./dom.js";
import { Health } from "./health.js";
import { Observers } from "./observers.js";
import { Pane } from "./pane.js";
import { Promises } from "./promises.js";
import { report } from "./report.js";
import { Tools } from "./tools.js";

const find = (selector) => document.querySelector(selector);
const observers = new Observers();
const panes = [];
let number = 0;

const promises = new Promises({
  changed: () => checklist.changed(),
  history: (selection) => panes[0]?.client.history(selection) ?? Promise.reject(new Error("no client")),
});
const checklist = new Checklist(() => promises.verdicts);
const charts = new Charts();
const health = new Health(find("#server"), observers);
const announcer = new Announcer(find("#announcer"), () => panes[0]);
const tools = new Tools({
  panes,
  promises,
  addPane: () => addPane().element.scrollIntoView({ block: "nearest", inline: "nearest" }),
  limits: () => panes[0]?.limits ?? { message_bytes: 4096 },
  delays: () => charts.delays(),
  report: () =>
    report({ panes, promises: promises.verdicts, charts: charts.summary, health: health.last, badInputs: tools.badInputs }),
});
observers.add(promises, charts, health, tools, announcer);

function addPane() {
  const pane = new Pane(++number, { observers, remove: removePane });
  panes.push(pane);
  find("#panes").append(pane.element);
  tools.panesChanged();
  setText(find("#clients"), `${panes.length} client${panes.length === 1 ? "" : "s"}`);
  return pane;
}

function removePane(pane) {
  panes.splice(panes.indexOf(pane), 1);
  pane.close();
  observers.notify("removed", pane);
  tools.panesChanged();
  setText(find("#clients"), `${panes.length} client${panes.length === 1 ? "" : "s"}`);
  (find("#panes textarea") ?? find("#bench button")).focus();
}

find("#bench").append(tools.element, charts.element);
find("#seen").append(checklist.element);
addPane();

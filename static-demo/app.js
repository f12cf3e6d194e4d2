// Shows the history and what is said live; sends. Messages come in one order, each once: see the README.
import { io } from "./vendor/socket.io.esm.min.js";

const list = document.querySelector("#messages");
const state = document.querySelector("#state");
const problem = document.querySelector("#problem");
const name = document.querySelector("#name");
const text = document.querySelector("#text");

let epoch = null;
let last = 0;
let work = Promise.resolve();

const socket = io({ auth: (send) => send(epoch ? { after: last, epoch } : {}) });
const inOrder = (step) => (work = work.then(step));
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

function show(message) {
  if (message.id <= last) return;
  last = message.id;
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  const item = document.createElement("li");
  const time = document.createElement("time");
  time.dateTime = new Date(message.ts).toISOString();
  time.textContent = new Date(message.ts).toLocaleTimeString();
  const who = document.createElement("b");
  who.textContent = ` ${message.title ?? message.uid ?? "somebody"}: `;
  item.dataset.id = message.id;
  item.append(time, who, message.text);
  list.append(item);
  while (list.children.length > 1000) list.firstChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

async function start({ epoch: now, last_id: lastId, recovered }) {
  while (!recovered) {
    const answer = await fetch(`/messages?before=${lastId + 1}&at_least=${lastId}`).catch(() => null);
    if (answer?.ok) {
      const history = await answer.json();
      if (now !== epoch) {
        [epoch, last] = [now, 0];
        list.replaceChildren();
      }
      history.reverse().forEach(show);
      return;
    }
    await pause(1000);
  }
}

socket.on("session", (session) => {
  state.textContent = `connected to ${session.instance}`;
  inOrder(() => start(session));
});
socket.on("reset", (reset) => inOrder(() => start(reset)));
socket.on("message", (message) => inOrder(() => show(message)));
socket.on("disconnect", () => (state.textContent = "disconnected, trying again"));
socket.on("connect_error", (error) => (state.textContent = `not connected: ${error.message}`));

name.value = localStorage.getItem("name") ?? "";
name.addEventListener("change", () => localStorage.setItem("name", name.value));

document.querySelector("#compose").addEventListener("submit", async (event) => {
  event.preventDefault();
  const message = { text: text.value, nonce: crypto.randomUUID?.() ?? String(Math.random()) };
  if (name.value.trim()) message.title = name.value.trim();
  text.value = "";
  problem.textContent = "";
  for (;;) {
    try {
      const answer = await socket.timeout(3000).emitWithAck("message", message);
      if (answer.ok) return;
      problem.textContent = answer.error.message;
      if (answer.error.code !== "unavailable") return;
      await pause(1000 * (answer.error.retry_after ?? 1));
    } catch {
      problem.textContent = "no answer yet, trying again";
    }
    // The same nonce again: it is stored once, however often it is sent.
    if (socket.connected) problem.textContent = "";
  }
});

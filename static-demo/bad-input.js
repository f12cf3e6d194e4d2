// What no client should send, each with the error that it has to get.
import { io } from "./vendor/socket.io.esm.min.js";

const WAIT_MS = 4000;
export const MARK = "bad input"; // in the text of each: no client may ever receive it

const nested = (depth) => (depth === 0 ? MARK : [nested(depth - 1)]);

export const KINDS = [
  { name: "Empty text", expected: "invalid", send: event({ text: "   ", title: MARK }) },
  { name: "No text", expected: "invalid", send: event({ title: MARK }) },
  { name: "Text that is a number", expected: "invalid", send: event({ text: 42, title: MARK }) },
  { name: "Title over 128 characters", expected: "invalid", send: event({ text: MARK, title: "t".repeat(129) }) },
  { name: "Nonce over 64 characters", expected: "invalid", send: event({ text: MARK, nonce: "n".repeat(65) }) },
  { name: "Message over the size limit", expected: "too_large", send: (limits) => event(tooLarge(limits))() },
  { name: "Nested too deeply", expected: "invalid", send: event({ text: MARK, nested: nested(40) }) },
  { name: "Unknown event", expected: "invalid", send: event({ text: MARK }, "shout") },
  { name: "Position that is no id", expected: "invalid", send: () => refusedHandshake({ after: -1, epoch: "e" }) },
  { name: "POST that is not JSON", expected: "invalid", send: () => request("/messages", post("{", "application/json")) },
  { name: "POST of another type", expected: "unsupported_media_type", send: () => request("/messages", post(MARK, "text/plain")) },
  { name: "POST over the size limit", expected: "too_large", send: (limits) => request("/messages", post(JSON.stringify(tooLarge(limits)), "application/json")) },
  { name: "History with a bad limit", expected: "invalid", send: () => request("/messages?limit=0") },
  { name: "Path that does not exist", expected: "not_found", send: () => request("/no-such-path") },
  { name: "/ws: no text", expected: "1008", send: () => frame(JSON.stringify({ title: MARK })) },
  { name: "/ws: over the size limit", expected: "1009", send: (limits) => frame(JSON.stringify(tooLarge(limits))) },
  { name: "/ws: binary frame", expected: "1008", send: () => frame(new Uint8Array([1, 2, 3])) },
];

// Returns {got, message}: the code that came, and the words.
export async function sendBadInput(kind, limits) {
  try {
    return await kind.send(limits);
  } catch (error) {
    return { got: "no error", message: error.message };
  }
}

function tooLarge({ message_bytes }) {
  return { text: MARK.padEnd(message_bytes + 1, "x") };
}

function post(body, type) {
  return { method: "POST", body, headers: { "Content-Type": type } };
}

function event(message, name = "message") {
  return async () => {
    const socket = io({ forceNew: true, reconnection: false, transports: ["websocket"] });
    try {
      const { ok, error } = await socket.timeout(WAIT_MS).emitWithAck(name, message);
      if (ok) return { got: "no error", message: "it was stored" };
      if (!socket.connected) return { got: "disconnected", message: error.message };
      return { got: error.code, message: error.message };
    } finally {
      socket.disconnect();
    }
  };
}

function refusedHandshake(auth) {
  const socket = io({ forceNew: true, reconnection: false, transports: ["websocket"], auth });
  return withinTime((resolve) => {
    socket.on("connect", () => resolve({ got: "no error", message: "connected" }));
    socket.on("connect_error", ({ message, data }) => resolve({ got: data?.code ?? "no code", message }));
  }).finally(() => socket.disconnect());
}

async function request(path, options) {
  const answer = await fetch(path, options);
  if (answer.ok) return { got: "no error", message: `${answer.status}` };
  const { code, detail, title } = await answer.json();
  return { got: code, message: detail ?? title };
}

function frame(data) {
  const socket = new WebSocket(new URL("/ws", location.href.replace(/^http/, "ws")));
  return withinTime((resolve) => {
    socket.onopen = () => socket.send(data);
    socket.onclose = ({ code, reason }) => resolve({ got: String(code), message: reason });
  }).finally(() => socket.close());
}

function withinTime(executor) {
  return new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error("no answer")), WAIT_MS);
    executor(resolve);
  });
}

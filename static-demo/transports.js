// The ways to be connected, by the names that the page shows.
import { GoWebSocket } from "./go-websocket.js";
import { io } from "./vendor/socket.io.esm.min.js";

// Each client has a connection of its own, and is back soon after a loss.
const OPTIONS = { forceNew: true, reconnectionDelay: 300, reconnectionDelayMax: 3000 };

export const TRANSPORTS = {
  upgrade: { label: "Upgrade", connect: (auth) => io({ ...OPTIONS, auth }) },
  websocket: { label: "WebSocket", connect: (auth) => io({ ...OPTIONS, auth, transports: ["websocket"] }) },
  polling: { label: "Polling", connect: (auth) => io({ ...OPTIONS, auth, transports: ["polling"] }) },
  plain: { label: "Plain /ws", connect: (auth) => new GoWebSocket(auth) },
};

// What the connection uses at this moment.
export function transportNow(socket) {
  if (!socket?.connected) return "none";
  return socket instanceof GoWebSocket ? "plain /ws" : socket.io.engine.transport.name;
}

// As a network loss would: the connection is gone, and sought again.
export function dropConnection(socket) {
  if (socket instanceof GoWebSocket) socket.drop();
  else socket.io.engine?.close();
}

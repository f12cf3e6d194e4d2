// A chat as Socket.IO's documentation would have it: its server, its Redis adapter, Node's own HTTP server.
// Everybody is in the room `chat`, the newest 1000 messages are kept.  Use: node server.mjs PORT REDIS_URL
import { createServer } from "node:http";
import { createAdapter } from "@socket.io/redis-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const HISTORY = 1000;
const [port, url] = process.argv.slice(2);

const store = createClient({ url });
const subscriber = store.duplicate();
for (const client of [store, subscriber]) client.on("error", (error) => console.error(error));
await Promise.all([store.connect(), subscriber.connect()]);

const http = createServer(async (request, response) => {
  if (request.url !== "/messages") return response.writeHead(404).end();
  const messages = await store.lRange("messages", 0, HISTORY - 1);
  const body = Buffer.from(`[${messages.join(",")}]`);
  response.writeHead(200, { "Content-Type": "application/json", "Content-Length": body.length });
  response.end(body);
});

const io = new Server(http, { adapter: createAdapter(store, subscriber), serveClient: false });
io.on("connection", (socket) => {
  socket.join("chat");
  socket.on("message", async (message, acknowledge) => {
    await store.multi().lPush("messages", JSON.stringify(message)).lTrim("messages", 0, HISTORY - 1).exec();
    io.to("chat").emit("message", message);
    acknowledge?.({ ok: true });
  });
});
http.listen(Number(port), "127.0.0.1");

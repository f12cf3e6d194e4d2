// An HTTP agent that knows its TCP connections, so that a test can take them away as a network does.
import http from "node:http";

export class DroppingAgent extends http.Agent {
  #connections = new Set();

  createConnection(options, callback) {
    const connection = super.createConnection(options, callback);
    this.#connections.add(connection);
    connection.once("close", () => this.#connections.delete(connection));
    return connection;
  }

  get open() {
    return this.#connections.size;
  }

  // With `reset` the server sees a connection reset, without it an end of stream.
  drop(reset) {
    for (const connection of this.#connections) {
      // xmlhttprequest-ssl would quietly repeat a request on a reused connection (and never end the repeated one).
      if (connection._httpMessage) connection._httpMessage.reusedSocket = false;
      if (reset && !connection.connecting) connection.resetAndDestroy();
      else connection.destroy();
    }
  }
}

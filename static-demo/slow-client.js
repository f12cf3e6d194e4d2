// A client that stops reading: polling by hand, because a browser's own sockets always read.
// It has to be closed, the others must not notice, and with its position it has to get everything after all.

const MESSAGES = 400;
const TEXT_BYTES = 3800; // together more than SEND_BUFFER_BYTES, and less than the history holds
const PARALLEL = 20;
const RECORD = "\x1e"; // Engine.IO's separator on long polling

// Returns {kept, evidence}. progress(text) says what goes on.
export async function trySlowClient({ progress, delays }) {
  progress("connecting");
  const slow = await SlowClient.open({});
  const { epoch, last_id } = slow.session;
  progress(`sending ${MESSAGES} messages that it does not read`);
  const sent = await sendMany();
  progress("looking whether it was closed");
  if (!(await slow.closed())) return { kept: false, evidence: "The slow client was not closed." };
  const late = delays();
  progress("coming back");
  const again = await SlowClient.open({ after: last_id, epoch });
  const wanted = new Set(sent);
  let last = last_id;
  let inOrder = again.session.recovered === true;
  while (wanted.size > 0 && inOrder) {
    for (const { id } of again.messages.splice(0)) {
      inOrder &&= id === last + 1;
      last = id;
      wanted.delete(id);
    }
    if (wanted.size > 0) await again.poll();
  }
  again.close();
  if (!inOrder) return { kept: false, evidence: "What the slow client had missed did not come back whole and in order." };
  const others = late ? ` Meanwhile half of this page's messages took ${late.median.toFixed(1)} ms.` : "";
  return { kept: true, evidence: `A client that did not read was closed; back, it got all ${sent.length} messages.${others}` };
}

async function sendMany() {
  const ids = [];
  let begun = 0;
  const sendSome = async () => {
    while (begun < MESSAGES) {
      const text = `slow client ${++begun} of ${MESSAGES} `.padEnd(TEXT_BYTES, ".");
      const body = JSON.stringify({ text, title: "slow client test" });
      const answer = await fetch("/messages", { method: "POST", body, headers: { "Content-Type": "application/json" } });
      if (!answer.ok) throw new Error(`publishing is answered ${answer.status}`);
      ids.push((await answer.json()).id);
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, sendSome));
  return ids;
}

class SlowClient {
  session = null;
  messages = [];
  #url = "/socket.io/?EIO=4&transport=polling";

  static async open(auth) {
    const client = new SlowClient();
    const [open] = await client.#get();
    client.#url += `&sid=${JSON.parse(open.slice(1)).sid}`;
    await client.#post(`40${JSON.stringify(auth)}`);
    while (!client.session) await client.poll();
    return client;
  }

  async poll() {
    for (const packet of await this.#get()) {
      if (packet === "2") await this.#post("3"); // a ping
      if (!packet.startsWith("42")) continue;
      const [event, data] = JSON.parse(packet.slice(2));
      if (event === "session") this.session = data;
      if (event === "message") this.messages.push(data);
    }
  }

  // What was already on its way to it may still be had; then its session is gone.
  async closed() {
    for (let tries = 0; tries < 5; tries++) {
      const answer = await fetch(this.#url, { cache: "no-store" });
      if (!answer.ok) return true;
      if ((await answer.text()).split(RECORD).includes("1")) return true;
    }
    return false;
  }

  close() {
    this.#post("1").catch(() => {});
  }

  async #get() {
    const answer = await fetch(this.#url, { cache: "no-store" });
    if (!answer.ok) throw new Error(`polling is answered ${answer.status}`);
    return (await answer.text()).split(RECORD);
  }

  async #post(body) {
    await fetch(this.#url, { method: "POST", body, headers: { "Content-Type": "text/plain;charset=UTF-8" } });
  }
}

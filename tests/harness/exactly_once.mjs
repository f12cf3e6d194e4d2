// What a frontend does to see each message once: it stores the epoch and the newest id, sends both when it
// reconnects, and drops ids that it has. No I/O.

export class ExactlyOnce {
  #seen = new Set();

  constructor({ after, epoch } = {}) {
    this.epoch = epoch ?? null;
    this.newest = after ?? null;
    this.duplicates = 0;
    this.outOfOrder = []; // ids that are not newer than the newest one and were never seen: there must be none
  }

  // The `auth` of the next connect.
  get auth() {
    return this.epoch === null ? {} : { after: this.newest, epoch: this.epoch };
  }

  // Whether the history has to be loaded. `reloads`: the caller is going to do it, so everything is missing still.
  session({ epoch, last_id: lastId, recovered }, reloads) {
    if (recovered === true) return false;
    this.#begin(epoch, lastId, reloads);
    return recovered === false;
  }

  reset({ epoch, last_id: lastId }, reloads) {
    this.#begin(epoch, lastId, reloads);
    return true;
  }

  // Whether this message is new.
  accept(id) {
    if (this.newest !== null && id <= this.newest) {
      if (this.#seen.has(id)) this.duplicates += 1;
      else this.outOfOrder.push(id);
      return false;
    }
    this.newest = id;
    this.#seen.add(id);
    return true;
  }

  #begin(epoch, lastId, reloads) {
    if (epoch !== this.epoch) {
      this.epoch = epoch;
      this.newest = 0;
      this.#seen.clear();
    }
    if (!reloads) this.newest = lastId;
  }
}

// A frontend that takes what comes.
export class TakesAll {
  epoch = null;
  newest = null;
  duplicates = 0;
  outOfOrder = [];

  session() {
    return false;
  }

  reset() {
    return false;
  }

  accept(id) {
    this.newest = id;
    return true;
  }
}

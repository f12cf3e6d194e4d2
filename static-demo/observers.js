// Who wants to know what happens to the clients of this page. Each implements what it cares for:
//   sending(pane, draft)                      answered(pane, draft, answer, milliseconds)
//   session(pane, session, position)          reset(pane, reset)
//   received(pane, message)  as it came       shown(pane, message, live)  after duplicates were dropped
//   disconnected(pane, {reason, code, wanted})  removed(pane)
//   health({reachable, ready, reason})
export class Observers {
  #all = [];

  add(...observers) {
    this.#all.push(...observers);
  }

  notify(event, ...details) {
    for (const observer of this.#all) observer[event]?.(...details);
  }
}

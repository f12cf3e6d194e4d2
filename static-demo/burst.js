// Many messages at a rate.
const TICK_MS = 20;

// Sends `count` messages, `rate` a second; progress(acknowledged, failed) after each answer.
export async function burst(pane, { count, rate, progress, signal }) {
  let acknowledged = 0;
  let failed = 0;
  const answers = [];
  const begun = performance.now();
  while (answers.length < count && !signal.aborted) {
    const due = Math.min(count, Math.ceil(((performance.now() - begun) / 1000) * rate + 1e-9) || 1);
    // A page that was held up catches up in steps.
    for (let room = Math.ceil((rate * TICK_MS * 3) / 1000); answers.length < due && room > 0; room--) {
      answers.push(
        pane.send(`burst ${answers.length + 1} of ${count}`).then(({ ok }) => {
          if (ok) acknowledged++;
          else failed++;
          progress(acknowledged, failed);
        }),
      );
    }
    await new Promise((resolve) => setTimeout(resolve, TICK_MS));
  }
  await Promise.all(answers);
  return { acknowledged, failed, seconds: (performance.now() - begun) / 1000 };
}

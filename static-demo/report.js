// All that the page knows, as text for an issue.
export function report({ panes, promises, charts, health, badInputs }) {
  const lines = [
    `ditochat demo page, ${new Date().toISOString()}`,
    navigator.userAgent,
    `Server: ${health}`,
    "",
    "Promises",
    ...promises.map(({ id, title, state, evidence }) => `  ${id} ${title}: ${state === "open" ? "not seen yet" : `${state}. ${evidence}`}`),
    "",
    "The last minute",
    `  ${charts}`,
  ];
  for (const pane of panes) {
    lines.push("", pane.title);
    for (const [name, value] of Object.entries(pane.status())) lines.push(`  ${name}: ${value}`);
  }
  if (badInputs.length > 0) lines.push("", "Bad input");
  for (const { name, expected, got, message } of badInputs) {
    lines.push(`  ${name}: expected ${expected}, got ${got} (${message})`);
  }
  return lines.join("\n");
}

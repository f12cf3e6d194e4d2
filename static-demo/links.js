// Text with its web addresses as links.
import { element } from "./dom.js";

const ADDRESS = /\bhttps?:\/\/[^\s<>"']+/g;
const TRAILING = /[.,;:!?)\]}]+$/; // the sentence's, not the address's

export function withLinks(text) {
  const parts = [];
  let end = 0;
  for (const { 0: found, index } of text.matchAll(ADDRESS)) {
    const address = found.replace(TRAILING, "");
    if (!URL.canParse(address)) continue;
    parts.push(text.slice(end, index), element("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, address));
    end = index + address.length;
  }
  parts.push(text.slice(end));
  return parts;
}

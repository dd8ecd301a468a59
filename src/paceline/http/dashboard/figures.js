// Small drawings beside numbers that say the same.

import { element, percent } from "./elements.js";

function shape(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function drawing(width, height, label) {
  const made = shape("svg", { viewBox: `0 0 ${width} ${height}`, width, height, focusable: "false" });
  if (label) made.setAttribute("role", "img"), made.setAttribute("aria-label", label);
  else made.setAttribute("aria-hidden", "true");
  return made;
}

/** A line from 0 to `most` with shapes on it: `{kind: "dot" | "mark" | "interval", from, to}`. */
export function line(most, shapes, width = 160) {
  const at = (value) => 5 + (width - 10) * Math.min(1, Math.max(0, value / most));
  const made = drawing(width, 18);
  made.append(shape("line", { class: "track", x1: at(0), x2: at(most), y1: 9, y2: 9 }));
  for (const { kind, from, to } of shapes) {
    if (kind === "dot") made.append(shape("circle", { class: kind, cx: at(from), cy: 9, r: 5 }));
    else if (kind === "mark") made.append(shape("line", { class: kind, x1: at(from), x2: at(from), y1: 1, y2: 17 }));
    else made.append(shape("line", { class: kind, x1: at(from), x2: at(to), y1: 9, y2: 9 }));
  }
  return made;
}

/** A bar that is filled up to a share. */
export function bar(part, isFull = false) {
  const made = drawing(160, 12), width = Math.max(0, Math.min(1, part)) * 158;
  made.append(shape("rect", { class: "track-box", x: 1, y: 1, width: 158, height: 10, rx: 3 }));
  made.append(shape("rect", { class: isFull ? "filled full" : "filled", x: 1, y: 1, width, height: 10, rx: 3 }));
  return made;
}

/**
 * By position of a draft: a bar as high as the share of drafts that were accepted so far, and a mark at the share from
 * which on drafting the token pays.
 */
export function positions(rows, label) {
  const step = 34, left = 46, top = 16, high = 120, width = left + step * rows.length + 8;
  const made = drawing(width, top + high + 36, label);
  const most = Math.min(1.25, Math.max(1, ...rows.map((row) => row.adds ?? 0))), y = (value) => top + high * (1 - Math.min(value, most) / most);
  for (const tick of [0, 0.5, 1]) {
    made.append(shape("line", { class: "grid", x1: left, x2: width - 4, y1: y(tick), y2: y(tick) }));
    made.append(text(left - 6, y(tick) + 4, percent(tick), "end"));
  }
  rows.forEach(({ accepted, expected, adds }, number) => {
    const x = left + step * number + 6;
    if (accepted !== null) made.append(shape("rect", { class: accepted >= (adds ?? 0) ? "bar" : "bar short", x, y: y(accepted), width: step - 12, height: Math.max(0, y(0) - y(accepted)) }));
    if (expected !== undefined) made.append(shape("circle", { class: "hollow", cx: x + step / 2 - 6, cy: y(expected), r: 4 }));
    if (adds !== null) made.append(shape("line", { class: "mark", x1: x - 4, x2: x + step - 8, y1: y(adds), y2: y(adds) }));
    if (adds > most) made.append(text(x + step / 2 - 6, y(adds) - 5, percent(adds), "middle")); // it stands above the drawing
    made.append(text(x + step / 2 - 6, top + high + 16, String(number + 1), "middle"));
  });
  made.append(text(left + (step * rows.length) / 2, top + high + 32, "position in the draft", "middle"));
  return made;
}

function text(x, y, content, anchor) {
  const made = shape("text", { x, y, "text-anchor": anchor });
  made.textContent = content;
  return made;
}

/** Where a request's time went: `[[name, seconds, class]]`, each with its share of the width. */
export function spans(parts) {
  const total = parts.reduce((sum, [, seconds]) => sum + seconds, 0) || 1;
  const made = drawing(600, 22);
  made.classList.add("spans");
  made.setAttribute("preserveAspectRatio", "none");
  let x = 0;
  for (const [, seconds, kind] of parts) {
    const width = (600 * seconds) / total;
    made.append(shape("rect", { class: kind, x, y: 0, width, height: 22 }));
    x += width;
  }
  return made;
}

export function key(entries) {
  return element("ul.key", entries.map(([kind, words]) => {
    const sign = drawing(18, 12);
    if (kind === "mark") sign.append(shape("line", { class: "mark", x1: 1, x2: 17, y1: 6, y2: 6 }));
    else if (kind === "hollow" || kind === "dot") sign.append(shape("circle", { class: kind, cx: 9, cy: 6, r: 4 }));
    else sign.append(shape("rect", { class: kind, x: 3, y: 1, width: 12, height: 10 }));
    return element("li", sign, " ", words);
  }));
}

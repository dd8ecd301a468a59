// Elements and numbers for people. All text goes in as text, never as markup.

export const NONE = "–";

export const byId = (id) => document.getElementById(id);
export const known = (value) => value !== null && value !== undefined;
export const fixed = (digits) => (value) => (known(value) ? value.toFixed(digits) : NONE);
export const share = fixed(2);
export const whole = (value) => (known(value) ? value.toLocaleString("en") : NONE);
export const percent = (value) => (known(value) ? `${Math.round(100 * value)} %` : NONE);
export const some = (value) => (known(value) && value !== "" ? String(value) : NONE);
export const counted = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
export const speed = (tokens, seconds) => (tokens && seconds ? tokens / seconds : null);
export const clock = (at) => new Date(1000 * at).toLocaleTimeString("en-GB");
export const day = (at) => new Date(1000 * at).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });

/** With two decimals, or where it is less than a tenth, with two significant digits. */
export function amount(money) {
  if (!known(money)) return NONE;
  return Math.abs(money) >= 0.1 || !money ? money.toFixed(2) : String(Number(money.toPrecision(2)));
}

/** A time of up to some seconds: "85 ms", "0.42 s", "12.3 s". */
export function brief(seconds) {
  if (!known(seconds)) return NONE;
  if (seconds < 0.0995) return `${(1000 * seconds).toFixed(seconds < 0.00995 ? 1 : 0)} ms`;
  return seconds < 10 ? `${seconds.toFixed(2)} s` : seconds < 120 ? `${seconds.toFixed(1)} s` : lasting(seconds);
}

/** A time of any length, in the two largest units: "3 h 12 min". */
export function lasting(seconds) {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => seconds >= size);
  if (first < 0) return "0 s";
  let rest = Math.floor(seconds);
  const parts = [];
  for (const [name, size] of units.slice(first, first + 2)) {
    if (rest >= size) parts.push(`${Math.floor(rest / size)} ${name}`);
    rest %= size;
  }
  return parts.join(" ");
}

export function median(values) {
  if (!values.length) return null;
  const ordered = [...values].sort((one, other) => one - other), middle = ordered.length >> 1;
  return ordered.length % 2 ? ordered[middle] : (ordered[middle - 1] + ordered[middle]) / 2;
}

/** `element("p.note", "text", child)`; text and nodes go in in their order, what is null or false is left out. */
export function element(name, ...children) {
  const [tag, ...classes] = name.split(".");
  const made = document.createElement(tag);
  if (classes.length) made.className = classes.join(" ");
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export function link(href, ...children) {
  const made = element("a", ...children);
  made.href = href;
  return made;
}

export function details(id, summary, ...children) {
  const made = element("details", element("summary", summary), ...children);
  made.id = id;
  return made;
}

/** A word that is explained where the pointer or the focus is, and in the list at the page's end (`words.js`). */
export function term(text, word) {
  const made = element("span.term", text);
  made.tabIndex = 0;
  made.dataset.word = word;
  made.setAttribute("aria-describedby", `word-${word}`);
  return made;
}

/**
 * A table. `columns` are `[heading, kind]`; kinds are "number", "text", "wide" and "figure". Cells are text or nodes;
 * the first one of a row is its heading. On a phone each row is a card, whose lines have the columns' headings.
 */
export function table(label, columns, rows) {
  const heads = columns.map(([heading, kind]) => {
    const made = element("th", kind === "figure" ? element("span.unseen", heading) : heading);
    made.scope = "col";
    made.className = kind || "text";
    return made;
  });
  const body = rows.map((cells) => {
    if (cells instanceof Node) return cells;
    return element("tr", cells.map((cell, number) => {
      const made = element(number ? "td" : "th", cell instanceof Node || Array.isArray(cell) ? cell : String(cell));
      if (!number) made.scope = "row";
      made.className = `${columns[number][1] || "text"}${made.textContent === NONE ? " none" : ""}`;
      const heading = columns[number][0];
      made.dataset.label = columns[number][1] === "figure" ? "" : heading instanceof Node ? heading.textContent : heading;
      return made;
    }));
  });
  const made = element("table", element("caption.unseen", label), element("thead", element("tr", heads)), element("tbody", body));
  const region = element("div.scroll", made);
  region.tabIndex = 0;
  region.setAttribute("role", "region");
  region.setAttribute("aria-label", label);
  return region;
}

/** A row of a table that tells what the next ones are about. */
export function groupRow(text, columns) {
  const cell = element("th.group", text);
  cell.colSpan = columns;
  cell.scope = "rowgroup";
  return element("tr.group", cell);
}

const shown = new WeakMap();

/** Put `made` where `place` is; left alone where nothing has changed, and what had the focus or was open is so again. */
export function show(place, ...made) {
  const nodes = made.flat().filter(Boolean);
  const markup = nodes.map((node) => (node instanceof Element ? node.outerHTML : node.textContent)).join("");
  if (shown.get(place) === markup) return;
  shown.set(place, markup);
  const focused = place.contains(document.activeElement) ? pathOf(document.activeElement, place) : null;
  const open = [...place.querySelectorAll("details[open]")].map((one) => one.id);
  const scrolled = [...place.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
  place.replaceChildren(...nodes);
  for (const id of open) if (byId(id)) byId(id).open = true;
  [...place.querySelectorAll(".scroll")].forEach((one, number) => (one.scrollLeft = scrolled[number] || 0));
  if (focused) found(focused, place)?.focus({ preventScroll: true });
}

/** How to find an element again that was made anew: by its address, or else by its place among its like. */
function pathOf(node, place) {
  const name = node.tagName.toLowerCase();
  if (node.getAttribute("href")) return { selector: `a[href="${CSS.escape(node.getAttribute("href"))}"]`, number: 0 };
  if (name === "summary") return { selector: `#${CSS.escape(node.parentElement.id)} > summary`, number: 0 };
  return { selector: name, number: [...place.querySelectorAll(name)].indexOf(node) };
}

function found({ selector, number }, place) {
  return place.querySelectorAll(selector)[number];
}

/** Only what changed is written, so that a screen reader says it once. */
export function setText(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

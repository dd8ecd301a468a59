// The requests that run, and those that have ended, with the reasons in words.

import { amount, brief, byId, clock, counted, element, fixed, known, link, percent, setText, show, some, speed, table, term, whole, NONE } from "./elements.js";

const PAGE = 25;

let most = PAGE;
let state = { ended: [], money: null };

export function showRunning(running) {
  if (!running.length) return show(byId("running"), element("p.soft", "None is running."));
  const rows = running.map((one) => [
    some(one.task), some(one.lane), element("span.live", one.phase), brief(one.age_s),
    known(one.expected_s) ? brief(one.expected_s) : NONE, some(one.client), one.why ?? NONE,
  ]);
  show(byId("running"), element("h3", `${counted(running.length, "request")} running`),
    table("Running requests", [["task", "text"], ["lane", "text"], ["now", "text"], ["for", "number"], ["expected", "number"], ["client", "text"], ["why", "wide"]], rows));
}

/** The requests that have ended, the newest first, as far as the filter lets them. */
export function showEnded(ended, money) {
  state = { ended, money };
  draw();
}

function draw() {
  const { ended, money } = state;
  byId("filter").hidden = !ended.length;
  if (!ended.length) return show(byId("ended"), nothing());
  const fitting = ended.filter(fits).reverse(), rows = fitting.slice(0, most);
  setText(byId("count"), `${fitting.length === ended.length ? "" : `${whole(fitting.length)} of `}the last ${counted(ended.length, "request")}`);
  const columns = [
    ["time", "text"], ["task", "text"], ["lane", "text"], ["status", "text"], ["took", "number"], ["tokens", "number"],
    ["tokens/s", "number"], [term("accepted", "acceptance"), "number"], ...(money ? [[`cost, ${money.currency}`, "number"]] : []), ["why", "wide"],
  ];
  const more = fitting.length > rows.length && element("p", button(`Show ${Math.min(PAGE, fitting.length - rows.length)} more`));
  show(byId("ended"), rows.length ? table("Requests that have ended", columns, rows.map((one) => cells(one, money))) : element("p.empty", "None of them fits."), more);
}

function button(words) {
  const made = element("button.more", words);
  made.type = "button";
  return made;
}

function nothing() {
  const example = `curl ${location.origin}/v1/chat/completions -d '{"messages":[{"role":"user","content":"Tell me a story."}],"max_tokens":64}'`;
  return element("div.empty", element("p", "No request has come since the gateway was started. ", link("#try", "Try a prompt here"), ", or send one:"), element("pre", example));
}

function cells(one, money) {
  const seen = one.observed, when = link(`#request/${one.number}`, clock(one.at_s));
  when.title = `Request ${one.number}`;
  return [
    when, one.task, one.lane, statusOf(one), brief(one.total_s), whole(seen.completion_tokens),
    fixed(1)(speed(seen.decode_tokens, seen.decode_s)), seen.drafted ? percent(seen.accepted / seen.drafted) : NONE,
    ...(money ? [`${one.cost_is_estimate ? "about " : ""}${amount(one.cost)}`] : []), why(one),
  ];
}

export function statusOf({ status, error }) {
  return element(`span.${error ? "bad" : "good"}`, status === 499 ? "client left" : String(status));
}

function why(one) {
  const struck = one.placed ? Object.entries(one.placed.struck) : [];
  return [one.error && element("span.problem", one.error, ". "), one.why ?? one.reason, ...struck.map(([engine, reason]) => element("div", `Not ${engine}: ${reason}`))].filter(Boolean);
}

const KINDS = {
  all: () => true,
  failed: (one) => one.error !== null,
  explored: (one) => one.explored,
  moved: (one) => one.failed.length > 0,
  drafted: (one) => one.observed.drafted > 0,
};

function fits(one) {
  if (!KINDS[byId("which").value](one)) return false;
  const words = byId("search").value.trim().toLowerCase();
  if (!words) return true;
  return [one.lane, one.task, one.model, one.client, one.id, one.error, String(one.status)].some((value) => value && value.toLowerCase().includes(words));
}

export function listenToFilter() {
  byId("filter").addEventListener("input", () => {
    most = PAGE;
    draw();
  });
  byId("filter").addEventListener("submit", (event) => event.preventDefault());
  byId("ended").addEventListener("click", ({ target }) => {
    if (!target.closest(".more")) return;
    most += PAGE;
    draw();
  });
}

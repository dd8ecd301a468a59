// What matters first: is it up, how fast is it, what did routing bring, what needs somebody.

import { byId, counted, element, known, lasting, link, percent, brief, share, show, term, whole } from "./elements.js";
import { showCharts } from "./over_time.js";

const HEALTHY = "up";
const RANGES = { 900: "15 minutes", 3600: "hour", 21600: "6 hours", 86400: "24 hours", 604800: "7 days", 2592000: "30 days" };

/** The engines of a document of lanes, each once. */
export function enginesOf(lanes) {
  const engines = new Map();
  for (const lane of lanes) {
    if (!engines.has(lane.engine.name)) engines.set(lane.engine.name, { ...lane.engine, health: lane.health, problem: lane.problem, ejected: lane.ejected, device: lane.device, lanes: [] });
    engines.get(lane.engine.name).lanes.push(lane);
  }
  return [...engines.values()];
}

/** In a word and a sentence: whether requests are served. */
export function healthOf({ lanes, in_flight: running }) {
  const engines = enginesOf(lanes), up = engines.filter((one) => one.health === HEALTHY && !one.problem);
  const many = `${up.length} of ${counted(engines.length, "engine")} up`;
  const kind = up.length === engines.length ? "good" : up.length ? "warn" : engines.some((one) => one.health === "starting") ? "starting" : "bad";
  const word = { good: "Serving", warn: "Serving, with less", starting: "Starting", bad: "Down" }[kind];
  return { kind, word, many, running };
}

export function showOverview({ lanes, history, report }) {
  if (!lanes) return;
  const tiles = [upTile(lanes), history && fastTile(history), report && gainTile(report), needsTile(lanes), history && trafficTile(history, lanes)];
  show(byId("tiles"), tiles);
  showNeeds(lanes.needs || []);
  if (history) showCharts(byId("charts"), history);
}

function tile(kind, heading, big, ...lines) {
  return element(`div.tile.${kind}`, element("h3", heading), element("p.big", big), ...lines.filter(Boolean).map((line) => element("p.soft", line)));
}

function upTile(lanes) {
  const { kind, word, many } = healthOf(lanes);
  const running = lanes.lanes.reduce((sum, lane) => sum + lane.running, 0), waiting = lanes.lanes.reduce((sum, lane) => sum + lane.waiting, 0);
  return tile(kind, "Is it up?", word, many, `${running} running, ${waiting} waiting`, known(lanes.started_s) && `since ${lasting(lanes.now_s - lanes.started_s)}`);
}

function fastTile({ total, range_s: range }) {
  const first = known(total.first_token_p50_s)
    ? [term("first token", "first-token"), ` ${brief(total.first_token_p50_s)}, p95 ${brief(total.first_token_p95_s)}`]
    : "no streamed answer, so no first token";
  const big = known(total.tokens_per_s) ? [total.tokens_per_s.toFixed(1), " ", term("tokens/s", "speed")] : "Not known yet";
  return tile("plain", "How fast?", big,
    element("span", first), `in the last ${RANGES[range] ?? lasting(range)}`);
}

function trafficTile({ total, range_s: range }, { money }) {
  const wrong = total.failed ? `${counted(total.failed, "request")} failed (${percent(total.failed / total.requests)})` : total.requests ? "none failed" : null;
  const read = total.prompt_tokens + total.cached_tokens;
  return tile(total.failed ? "warn" : "plain", "How much?", counted(total.requests, "request"),
    [wrong, total.refused && `${total.refused} refused`, total.left && `${total.left} left early`].filter(Boolean).join(", ") || `none in the last ${RANGES[range] ?? lasting(range)}`,
    `${counted(total.tokens, "token")} written`,
    read > 0 && element("span", `${whole(read)} read, ${percent(total.cached_tokens / read)} `, term("from the cache", "cached")),
    money && total.cost > 0 && `${total.cost.toPrecision(3)} ${money.currency} paid`);
}

const FINDINGS = {
  pays: ["good", ({ ratio }) => `${ratio.toFixed(2)} × as fast`, ({ lane }) => `as always ${lane}, the best single choice`],
  alike: ["plain", () => "About the same", ({ lane }) => `as always ${lane}`],
  unknown: ["plain", () => "Cannot be told yet", ({ lane }) => `beside always ${lane}`],
  "does not pay": ["warn", ({ ratio }) => `${(1 / ratio).toFixed(2)} × as slow`, ({ lane }) => `as always ${lane} would be`],
};

function gainTile({ comparisons, verdict }) {
  const current = comparisons.find((one) => one.is_current);
  if (!current) return tile("plain", "What did it bring?", "Cannot be told yet", verdict.length < 140 ? verdict : "There are too few requests to compare.", link("#gain", "why"));
  const [kind, big, beside] = FINDINGS[current.finding];
  const { low, high } = current.best;
  return tile(kind, "What did it bring?", big(current.best), beside(current.best),
    element("span", term("95 % interval", "interval"), ` ${share(low)} to ${share(high)}, ${counted(current.requests, "request")}`), link("#gain", "more"));
}

function needsTile({ needs }) {
  const critical = (needs || []).filter((need) => need.severity === "critical").length;
  const kind = critical ? "bad" : needs && needs.length ? "warn" : "good";
  return tile(kind, "What needs you?", needs && needs.length ? counted(needs.length, "thing") : "Nothing",
    needs && needs.length ? critical ? `${critical} of them ${critical === 1 ? "makes" : "make"} requests fail` : "requests are served meanwhile" : "all parts work");
}

function showNeeds(needs) {
  if (!needs.length) return show(byId("needs"));
  show(byId("needs"), element("ul.needs", needs.map((need) => element(`li.${need.severity}`,
    element("strong", `${need.severity === "critical" ? "Critical" : "Warning"}, ${need.about}: `), need.problem, " ", element("span.action", need.action)))));
}


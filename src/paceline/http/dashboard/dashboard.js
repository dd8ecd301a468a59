"use strict";
// Shows what the gateway tells: /paceline/lanes, /paceline/requests and /paceline/report. Loaded once, asks each second.

const INTERVAL_MS = 1000;
const REPORT_EVERY = 10;
const MAX_REQUESTS = 1000;
const MAX_SHOWN = 30;
const CHAT = "/v1/chat/completions";
const NONE = "–";
const POLICY_COLUMNS = 4, TASK_COLUMNS = 7;

const byId = (id) => document.getElementById(id);
let key = sessionStorage.getItem("paceline key") || "";
let last = 0;
let rounds = 0;
let isPaused = false;
let requests = [];
let currency = null; // where nothing costs anything, none

class NeedsKey extends Error {}

async function ask(path, body, headers = {}) {
  if (key) headers = { ...headers, authorization: `Bearer ${key}` };
  const options = body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) };
  const answer = await fetch(path, options);
  if (answer.status === 401) throw new NeedsKey(key ? "this is no key of the gateway" : "this gateway wants an API key");
  if (answer.status === 403) throw new NeedsKey((await answer.json()).error.message);
  if (!answer.ok) throw new Error((await answer.json()).error.message);
  return answer;
}

async function asked(path, body) {
  return (await ask(path, body)).json();
}

// Numbers for people.

const known = (value) => value !== null && value !== undefined;
const fixed = (digits) => (value) => (known(value) ? value.toFixed(digits) : NONE);
const whole = (value) => (known(value) ? String(value) : NONE);
const speed = (tokens, seconds) => (tokens && seconds ? (tokens / seconds).toFixed(1) : NONE);
const share = fixed(2);
const percent = (value) => `${Math.round(100 * value)} %`;

/** With two decimals, or where it is less than a tenth, with two significant digits. */
function amount(money) {
  if (!known(money)) return NONE;
  return Math.abs(money) >= 0.1 || !money ? money.toFixed(2) : String(Number(money.toPrecision(2)));
}

function median(values) {
  if (!values.length) return null;
  const ordered = [...values].sort((one, other) => one - other), middle = ordered.length >> 1;
  return ordered.length % 2 ? ordered[middle] : (ordered[middle - 1] + ordered[middle]) / 2;
}

// Elements; all text goes in as text, never as markup.

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function row(first, cells) {
  const made = document.createElement("tr");
  const head = first instanceof Node ? first : element("th", first);
  if (head.tagName === "TH") head.scope = "row";
  made.append(head, ...cells.map((cell) => (cell instanceof Node ? cell : element("td", cell, "number"))));
  return made;
}

function shape(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** A line from 0 to `most` with shapes on it, beside numbers that say the same. */
function figure(most, shapes) {
  const width = 160, height = 18, at = (value) => 4 + (width - 8) * Math.min(1, Math.max(0, value / most));
  const drawing = shape("svg", { width, height, "aria-hidden": "true", focusable: "false" });
  drawing.append(shape("line", { class: "track", x1: at(0), x2: at(most), y1: 9, y2: 9 }));
  for (const { kind, from, to } of shapes) {
    if (kind === "dot") drawing.append(shape("circle", { class: kind, cx: at(from), cy: 9, r: 5 }));
    else if (kind === "mark") drawing.append(shape("line", { class: kind, x1: at(from), x2: at(from), y1: 1, y2: 17 }));
    else drawing.append(shape("line", { class: kind, x1: at(from), x2: at(to), y1: 9, y2: 9 }));
  }
  const cell = document.createElement("td");
  cell.append(drawing);
  return cell;
}

// The parts of the page.

function showLanes(document_) {
  const rows = document_.lanes.flatMap((lane) => lane.by_model.map((one) => laneRow(lane, one)));
  byId("lanes").replaceChildren(...rows);
  showContexts(document_.lanes);
  const select = byId("lane"), names = document_.lanes.map((lane) => lane.lane);
  const offered = [...select.options].slice(1).map((option) => option.value);
  if (names.join() !== offered.join()) {
    const chosen = select.value;
    select.replaceChildren(select.options[0], ...names.map((name) => new Option(name, name)));
    select.value = names.includes(chosen) ? chosen : "";
  }
  const up = document_.lanes.filter((lane) => lane.health === "up").length;
  const problem = document_.log && document_.log.problem ? `; the decision log can't be written: ${document_.log.problem}` : "";
  say(`${up} of ${document_.lanes.length} lanes up, ${document_.in_flight} requests in flight, version ${document_.version}${problem}`);
}

/** Of an engine that serves several models each has a row: over different ones there is no speed. */
function laneRow(lane, { model, measured, step, faults }) {
  const health = element("td", lane.health, lane.health);
  for (const wrong of [lane.problem, ...faults]) if (wrong) health.append(" ", element("span", wrong, "problem"));
  return row(lane.lane, [
    element("td", said(model)), health, element("td", strategyOf(lane)), whole(lane.running), whole(lane.waiting),
    whole(measured.requests), whole(measured.failures), fixed(1)(measured.tokens_per_s), share(measured.acceptance),
    share(step.break_even_acceptance),
  ]);
}

/** How much of its context each slot holds, of engines that tell. */
function showContexts(lanes) {
  const engines = new Map(lanes.map((lane) => [lane.engine.name, lane.engine]));
  const rows = [...engines.values()].flatMap(({ name, slot_tokens: held, context_tokens: most }) =>
    (held || []).map((tokens, slot) => row(name, [
      whole(slot), whole(tokens), most ? whole(most) : NONE, most ? share(tokens / most) : NONE,
      figure(most || 1, most ? [{ kind: "interval", from: 0, to: tokens }] : []),
    ])));
  byId("contexts").replaceChildren(...rows);
  byId("contexts-part").hidden = !rows.length;
}

/** Where requests went and why, what that saves, and what is spent of each budget. */
function showMoney({ money, budgets }) {
  const before = currency;
  currency = money ? money.currency : null;
  byId("money-part").hidden = byId("cost").hidden = !money;
  if (currency !== before) showRequests();
  if (!money) return;
  setText("cost", `cost, ${currency}`);
  setText("saved", money.verdict);
  const since = new Date(1000 * money.since_s).toLocaleString();
  const hasAnswers = money.engines.some((engine) => engine.answers);
  setText("note-money", `${hasAnswers ? "Answers" : "No answers yet"} since ${since}; money in ${currency}`);
  byId("engines").replaceChildren(...money.engines.map((engine) => row(engine.engine, [
    element("td", engine.is_cloud ? "a provider's" : "one's own"), whole(engine.answers), paidTo(engine),
    element("td", Object.entries(engine.why).map(([why, count]) => `${why}: ${count}`).join("; ") || NONE, "why"),
  ])));
  byId("note-budgets").hidden = byId("budgets-part").hidden = !budgets.length;
  byId("budgets").replaceChildren(...budgets.map(({ key: name, per, spent, limit }) => row(
    `this ${per}${name ? `, ${name}` : ""}`, [
      amount(spent), amount(limit), limit ? percent(spent / limit) : NONE,
      figure(limit || 1, [{ kind: "interval", from: 0, to: Math.min(spent, limit) }, { kind: "mark", from: limit }]),
    ],
  )));
}

function paidTo({ is_cloud: isCloud, paid, estimates, unpriced }) {
  if (!isCloud) return NONE;
  const unsure = [...(estimates ? [`${estimates} estimated`] : []), ...(unpriced ? [`${unpriced} of unknown price`] : [])];
  return amount(paid) + (unsure.length ? ` (${unsure.join(", ")})` : "");
}

function strategyOf(lane) {
  const { kind, n_max: most, drafts, among } = lane.strategy;
  if (among.length) return `by step: ${among.map((one) => (one.n_max ? `${one.kind} up to ${one.n_max}` : one.kind)).join(", ")}`;
  return drafts ? (most ? `${kind}, up to ${most} tokens` : kind) : "plain";
}

function showRequests() {
  const rows = requests.slice(-MAX_SHOWN).reverse().map((one) => {
    const seen = one.observed;
    const why = one.error ? element("td", one.error, "why problem") : element("td", one.reason, "why");
    const struck = one.placed ? Object.entries(one.placed.struck) : [];
    for (const [engine, reason] of struck) why.append(element("div", `not ${engine}: ${reason}`));
    const cost = (one.cost_is_estimate ? "about " : "") + amount(one.cost);
    return row(element("td", new Date(1000 * one.at_s).toLocaleTimeString()), [
      element("td", one.task), element("td", one.lane), whole(seen.completion_tokens),
      speed(seen.decode_tokens, seen.decode_s), seen.drafted ? share(seen.accepted / seen.drafted) : NONE,
      whole(one.status), ...(currency ? [cost] : []), why,
    ]);
  });
  byId("requests").replaceChildren(...rows);
}

/** By model, of the requests that its lanes served with their latest settings. */
function showTasks() {
  const newest = new Map(), models = new Map();
  const lane = (one) => JSON.stringify([one.model, one.lane]);
  for (const one of requests) if (one.fingerprint) newest.set(lane(one), one.fingerprint);
  for (const one of requests) {
    if (one.error || newest.get(lane(one)) !== one.fingerprint) continue;
    if (!models.has(one.model)) models.set(one.model, []);
    models.get(one.model).push(one);
  }
  byId("tasks").replaceChildren(...[...models].flatMap(([model, some]) => [
    ...(model ? [groupRow(model, TASK_COLUMNS)] : []), ...taskRows(some),
  ]));
}

function taskRows(some) {
  const tasks = new Map();
  for (const one of some) {
    if (!tasks.has(one.task)) tasks.set(one.task, { requests: 0, tokens: 0, seconds: 0, drafted: 0, accepted: 0, drafting: 0, needed: [] });
    const sums = tasks.get(one.task), seen = one.observed;
    sums.requests += 1;
    sums.tokens += seen.decode_tokens || 0;
    sums.seconds += seen.decode_s || 0;
    sums.drafted += seen.drafted || 0;
    sums.accepted += seen.accepted || 0;
    sums.drafting += one.drafts ? 1 : 0;
    if (known(one.break_even_share)) sums.needed.push(one.break_even_share);
  }
  const ordered = [...tasks].sort((one, other) => other[1].seconds - one[1].seconds);
  return ordered.map(([task, sums]) => {
    const accepted = sums.drafted ? sums.accepted / sums.drafted : null;
    const needed = median(sums.needed);
    const shapes = [];
    if (known(needed)) shapes.push({ kind: "mark", from: needed });
    if (known(accepted)) shapes.push({ kind: "dot", from: accepted });
    return row(task, [
      whole(sums.requests), speed(sums.tokens, sums.seconds), percent(sums.drafting / sums.requests), share(accepted),
      known(needed) && needed > 1 ? "none is enough" : share(needed), figure(1, shapes),
    ]);
  });
}

function showReport(found) {
  setText("verdict", found.verdict);
  byId("gain").hidden = !found.comparisons.length;
  const highest = found.comparisons.flatMap((one) => one.policies.map((policy) => policy.high));
  const most = 1.1 * Math.max(1, ...highest);
  byId("policies").replaceChildren(...found.comparisons.flatMap((one) => [
    groupRow(one.about, POLICY_COLUMNS), ...one.policies.map((policy) => policyRow(policy, most)),
  ]));
}

function groupRow(text, columns) {
  const made = document.createElement("tr"), cell = element("td", text, "group");
  cell.colSpan = columns;
  made.append(cell);
  return made;
}

function policyRow(policy, most) {
  const { name, ratio, low, high } = policy;
  return row(name, [
    share(ratio), `${share(low)} to ${share(high)}`,
    figure(most, [{ kind: "mark", from: 1 }, { kind: "interval", from: low, to: high }, { kind: "dot", from: ratio }]),
  ]);
}

/** Only what changed is written, so that a screen reader says it once. */
function setText(id, text) {
  if (byId(id).textContent !== text) byId(id).textContent = text;
}

function say(text) {
  setText("status", text);
}

// The box to try a prompt in.

async function explain(body) {
  const found = await asked(`/paceline/explain${CHAT}`, body);
  setText("decision", `Would go to ${found.decision.lane}, with probability ${share(found.decision.propensity)}: ${found.decision.reason}`);
  byId("predictions").replaceChildren(...Object.entries(found.predictions).map(([lane, one]) => row(lane, [
    fixed(1)(one.ms_per_token), share(one.plain_steps_per_token), `±${percent(one.relative_spread)}`, share(one.acceptance),
    share(one.coverage),
  ])));
  showPlaces(found.placement);
  byId("signals").replaceChildren(...Object.entries(found.signals).filter(([name]) => name !== "task").map(([name, value]) => row(
    name, [element("td", typeof value === "object" && value ? listed(value) : said(value))],
  )));
  byId("explained").hidden = false;
  byId("answer").hidden = true;
}

/** By engine, what its answer is taken to cost, or why it may not serve. */
function showPlaces(placement) {
  byId("places-part").hidden = !placement;
  if (!placement) return;
  byId("places").replaceChildren(
    ...Object.entries(placement.terms).map(([engine, one]) => row(engine, [
      fixed(1)(one.time_s), amount(one.cost), share(one.poor), share(one.late), element("td", NONE),
    ])),
    ...Object.entries(placement.struck).map(([engine, why]) => row(engine, [
      NONE, NONE, NONE, NONE, element("td", why, "why"),
    ])),
  );
}

const said = (value) => (known(value) && value !== "" ? String(value) : NONE);
const listed = (shares) => Object.entries(shares).filter(([, value]) => value >= 0.005).map(([name, value]) => `${name} ${share(value)}`).join(", ");

async function send(body, lane) {
  const answer = await ask(CHAT, { ...body, stream: true }, lane ? { "x-paceline-lane": lane } : {});
  setText("decision", `${answer.headers.get("x-paceline-lane")}: ${answer.headers.get("x-paceline-reason")}`);
  byId("explained").hidden = true;
  const shown = byId("answer");
  shown.textContent = "";
  shown.hidden = false;
  let rest = "";
  for await (const piece of pieces(answer.body)) {
    const lines = (rest + piece).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data: {")) shown.textContent += textOf(JSON.parse(line.slice(6)));
    }
  }
}

async function* pieces(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
}

function textOf(event) {
  if (event.error) throw new Error(event.error.message);
  const delta = (event.choices && event.choices[0] && event.choices[0].delta) || {};
  return (delta.reasoning_content || "") + (delta.content || "");
}

async function tryPrompt(event) {
  event.preventDefault();
  const body = { messages: [{ role: "user", content: byId("prompt").value }], max_tokens: Number(byId("max-tokens").value) };
  const buttons = byId("try").querySelectorAll("button");
  for (const button of buttons) button.disabled = true;
  setText("decision", "…");
  try {
    if (event.submitter && event.submitter.value === "send") await send(body, byId("lane").value);
    else await explain(body);
  } catch (error) {
    if (error instanceof NeedsKey) wantKey(error.message);
    setText("decision", error.message || "a key is needed");
  } finally {
    for (const button of buttons) button.disabled = false;
    if (event.submitter) event.submitter.focus();
  }
}

// Once a second.

function wantKey(why) {
  say(why);
  byId("key-form").hidden = false;
}

async function update() {
  const lanes = await asked("/paceline/lanes");
  showLanes(lanes);
  showMoney(lanes);
  const found = await asked(`/paceline/requests?after=${last}`);
  if (found.last < last) {
    [last, requests] = [0, []]; // the gateway was started again
    return;
  }
  if (found.requests.length) {
    requests = [...requests, ...found.requests].slice(-MAX_REQUESTS);
    showRequests();
    showTasks();
  }
  last = found.last;
  if (rounds++ % REPORT_EVERY === 0) showReport(await asked("/paceline/report"));
  byId("key-form").hidden = true;
}

async function run() {
  if (!isPaused && !document.hidden) {
    try {
      await update();
    } catch (error) {
      if (error instanceof NeedsKey) wantKey(error.message);
      else say(`the gateway does not answer: ${error.message}`);
    }
  }
  setTimeout(run, INTERVAL_MS);
}

byId("try").addEventListener("submit", tryPrompt);
byId("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  byId("pause").setAttribute("aria-pressed", String(isPaused));
});
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = byId("key").value;
  sessionStorage.setItem("paceline key", key);
  rounds = 0;
});
run();

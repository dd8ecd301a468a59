// Lanes by engine, with their health and the costs of their steps; and what slots hold.

import { bar } from "./figures.js";
import { byId, counted, details, element, fixed, known, link, percent, show, some, table, term, whole, NONE } from "./elements.js";
import { enginesOf } from "./overview.js";

export function showLanes({ lanes, default_lane: first }) {
  const engines = enginesOf(lanes);
  if (!engines.length) return show(byId("engines"), element("p.empty", "No engine is configured."));
  show(byId("engines"), engines.map((engine) => ofEngine(engine, first)));
  showSlots(engines);
  offer(lanes.map((lane) => lane.lane));
}

function ofEngine(engine, first) {
  const models = [...new Set(engine.lanes.flatMap((lane) => lane.by_model.map((one) => one.model)))];
  const about = [models.filter(Boolean).join(", "), [engine.kind, engine.build].filter(Boolean).join(" "), engine.device && `on ${engine.device}`].filter(Boolean);
  const rows = engine.lanes.flatMap((lane) => lane.by_model.map((one) => laneRow(lane, one, models.length > 1, lane.lane === first)));
  const columns = [
    ["lane", "text"], ...(models.length > 1 ? [["model", "text"]] : []), ["decodes", "text"], ["running", "number"], ["waiting", "number"],
    ["requests", "number"], ["failed", "number"], ["tokens/s", "number"], [term("plain step", "plain-step"), "number"], [term("step cost", "step-cost"), "number"],
    [term("accepted", "acceptance"), "number"], [term("break-even", "break-even"), "number"],
  ];
  const faults = [...new Set(engine.lanes.flatMap((lane) => lane.faults))];
  return element("article.engine",
    element("h3", element(`span.${healthClass(engine)}`, engine.name), " ", element("span.soft", engine.health === "up" ? "is up" : `is ${engine.health}`)),
    engine.problem && element("p.problem", engine.problem),
    ...[...engine.warnings, ...faults].map((warning) => element("p.problem", warning)),
    about.length > 0 && element("p.soft", about.join(" · ")),
    table(`Lanes of ${engine.name}`, columns, rows),
    details(`about-${engine.name}`, "About this engine", facts([
      ["Address", engine.url], ["Process", engine.pid], ["Started again", counted(engine.restarts, "time")],
      ["Context", known(engine.context_tokens) ? counted(engine.context_tokens, "token") : null], ["Slots", engine.slots],
      ["Drafters", engine.drafters.map((one) => (one.n_max ? `${one.kind} up to ${one.n_max}` : one.kind)).join(", ")],
    ])),
  );
}

export function facts(pairs) {
  return element("dl.facts", pairs.filter(([, value]) => known(value) && value !== "").map(([name, value]) =>
    element("div", element("dt", name), element("dd", value instanceof Node ? value : String(value)))));
}

function healthClass({ health, ejected, problem }) {
  return health === "up" ? (ejected || problem ? "warn" : "good") : health === "starting" ? "starting" : "bad";
}

function laneRow(lane, { model, measured, step }, namesModel, isFirst) {
  const drafts = lane.strategy.drafts, cost = step.drafting_cost_in_plain_steps;
  return [
    element("span", lane.lane, isFirst && element("span.soft", " (default)")), ...(namesModel ? [some(model)] : []), strategyOf(lane.strategy),
    whole(lane.running), whole(lane.waiting), whole(measured.requests), whole(measured.failures), fixed(1)(measured.tokens_per_s),
    known(step.plain_ms) ? `${step.plain_ms.toFixed(1)} ms` : NONE, lane.strategy.among.length ? link("#drafting", "see drafting") : drafts && known(cost) ? `${cost.toFixed(2)} ×` : NONE,
    percent(measured.acceptance), drafts && known(cost) && !known(step.break_even_acceptance) ? "none is enough" : percent(step.break_even_acceptance),
  ];
}

export function strategyOf({ kind, n_max: most, drafts, among }) {
  if (among.length) return element("span", term("by step", "control"), `: ${among.map((one) => (one.n_max ? `${one.kind} up to ${one.n_max}` : one.kind)).join(", ")}`);
  return drafts ? (most ? `${kind}, up to ${counted(most, "token")}` : kind) : "plain";
}

/** How much of its context each slot holds, of engines that tell. */
function showSlots(engines) {
  const rows = engines.flatMap(({ name, slot_tokens: held, context_tokens: most }) => (held || []).map((tokens, slot) => [
    name, whole(slot), whole(tokens), whole(most), most ? percent(tokens / most) : NONE, most ? bar(tokens / most, tokens > 0.9 * most) : NONE,
  ]));
  byId("slots").hidden = document.querySelector("[data-for=slots]").hidden = !rows.length;
  if (!rows.length) return show(byId("contexts"));
  show(byId("contexts"), element("p.soft", "Tokens that each slot of an engine holds. A slot that is nearly full has no room for longer conversations."),
    table("Slots", [["engine", "text"], ["slot", "number"], ["tokens", "number"], ["of", "number"], ["share", "number"], ["as a figure", "figure"]], rows));
}

/** The lanes that a prompt may be sent down. */
function offer(names) {
  const select = byId("lane"), offered = [...select.options].slice(1).map((option) => option.value);
  if (names.join("\n") === offered.join("\n")) return;
  const chosen = select.value;
  select.replaceChildren(select.options[0], ...names.map((name) => new Option(name, name)));
  select.value = names.includes(chosen) ? chosen : "";
}

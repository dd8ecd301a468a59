// Drafters at work: what their drafts cost and bring, by position and by task.

import { key, line, positions } from "./figures.js";
import { byId, counted, details, element, fixed, groupRow, known, median, percent, show, speed, table, term, whole, NONE } from "./elements.js";

const MAX_POSITIONS = 16;

export function showDrafters({ drafters }) {
  if (!drafters.length) return show(byId("drafters"), element("p.empty", "No engine drafts, so that every token is decoded plainly."));
  show(byId("drafters"), element("p.soft", "Since the gateway was started, with the settings that engines have now"),
    element("div.cards", drafters.map(card)));
}

function card(one) {
  const name = `${one.kind}${one.n_max ? `, up to ${counted(one.n_max, "token")}` : ""}`;
  const id = `${one.engine}-${one.model}-${one.kind}`.replace(/[^\w-]/g, "_");
  const rows = one.positions.slice(0, MAX_POSITIONS).map((row, at) => ({ ...row, ...(one.expected?.[at] === undefined ? {} : { expected: one.expected[at] }) }));
  const hasPositions = rows.some((row) => known(row.accepted));
  return element("article.card",
    element("h3", name, element("span.soft", ` on ${one.engine}${one.model ? `, ${one.model}` : ""}`)),
    finding(one),
    element("p", numbers(one)),
    one.is_controlled && element("p.soft", "The engine decides at each step whether to draft and how far (", term("draft control", "control"), ")."),
    hasPositions && figure(one, rows, name, id),
    !hasPositions && one.drafted > 0 && element("p.soft", "This engine does not report which positions were accepted."),
    !hasPositions && one.step_costs.length > 0 && element("p.soft", "A step with the longest draft is believed to cost ", element("strong", `${one.step_costs.at(-1).toFixed(2)} plain steps`), "."),
  );
}

function finding({ worth, is_sure: isSure, steps, acceptance_length: length }) {
  if (!known(worth)) return element("p.finding", steps ? "It cannot be told whether it pays: its steps' cost is not known." : "It cannot be told yet whether it pays.");
  if (!isSure) return element("p.finding", `It cannot be told yet whether it pays: its steps may be anything around ${worth.toFixed(2)} × as fast as plain ones.`);
  const words = worth > 1 ? ["good", "It pays", "as fast as plain decoding"] : ["bad", "It costs more than it brings", "as fast as plain decoding"];
  return element("p.finding", element(`span.${words[0]}`, words[1]), `: its steps are ${worth.toFixed(2)} × ${words[2]}, with `, term(`${length.toFixed(2)} tokens per step`, "acceptance-length"), ".");
}

function numbers(one) {
  if (!one.drafted) return one.requests ? `It found nothing to draft in ${counted(one.requests, "answer")}.` : "It has not drafted yet.";
  const parts = [`${whole(one.accepted)} of ${counted(one.drafted, "drafted token")} accepted (${percent(one.accepted / one.drafted)})`];
  if (one.steps) parts.push(`${counted(one.steps, "step")} with ${one.mean_draft.toFixed(1)} drafted each`);
  if (known(one.tokens_of_drafts)) parts.push(`${percent(one.tokens_of_drafts)} of the text came from drafts`);
  if (one.shadow_drafted) parts.push(`of ${counted(one.shadow_drafted, "token")} that were only compared, ${percent(one.shadow_accepted / one.shadow_drafted)} would have been accepted`);
  return `${parts.join("; ")}.`;
}

function figure(one, rows, name, id) {
  const said = rows.filter((row) => known(row.accepted)).map((row, at) => `${at + 1}: ${percent(row.accepted)}${known(row.adds) ? `, pays from ${percent(row.adds)}` : ""}`);
  const caption = element("figcaption", term("Accepted by position", "position"), " against ", term("what the position costs", "adds"));
  const hasShort = rows.some((row) => known(row.accepted) && row.accepted < (row.adds ?? 0));
  return element("figure", caption, drawing(positions(rows, `Accepted by position. ${said.join("; ")}`), name),
    key([["bar", "accepted, pays"], ...(hasShort ? [["bar short", "accepted, does not pay"]] : []), ["mark", "what it costs"], ...(one.expected ? [["hollow", "expected"]] : [])]),
    details(`positions-${id}`, "As numbers", table(`${name}, by position`, [["position", "text"], ["accepted", "number"], ["pays from", "number"], ["tried", "number"], ["step cost", "number"]],
      rows.map((row, at) => [String(at + 1), percent(row.accepted), percent(row.adds), whole(row.verified), known(one.step_costs[at]) ? `${one.step_costs[at].toFixed(2)} ×` : NONE]))));
}

function drawing(figure_, name) {
  const made = element("div.drawing", figure_);
  made.tabIndex = 0; // it may be wider than a phone
  made.setAttribute("role", "region");
  made.setAttribute("aria-label", `${name}, by position`);
  return made;
}

const COLUMNS = () => [
  ["task", "text"], ["requests", "number"], ["tokens/s", "number"], ["with drafts", "number"], [term("accepted", "acceptance"), "number"],
  [term("break-even", "break-even"), "number"], ["as a figure", "figure"],
];

/** By model, of the requests that its lanes served with their latest settings. */
export function showTasks(requests) {
  const newest = new Map(), models = new Map();
  const lane = (one) => JSON.stringify([one.model, one.lane]);
  for (const one of requests) if (one.fingerprint) newest.set(lane(one), one.fingerprint);
  for (const one of requests) {
    if (one.error || newest.get(lane(one)) !== one.fingerprint) continue;
    if (!models.has(one.model)) models.set(one.model, []);
    models.get(one.model).push(one);
  }
  if (!models.size) return show(byId("tasks"), element("p.empty", "No answer yet."));
  const columns = COLUMNS();
  const rows = [...models].flatMap(([model, answers]) => [...(models.size > 1 ? [groupRow(model ?? "unknown model", columns.length)] : []), ...taskRows(answers)]);
  show(byId("tasks"), table("By task", columns, rows), key([["dot", "accepted"], ["mark", "break-even"]]));
}

function taskRows(answers) {
  const tasks = new Map();
  for (const one of answers) {
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
    const accepted = sums.drafted ? sums.accepted / sums.drafted : null, needed = median(sums.needed);
    const shapes = [...(known(needed) ? [{ kind: "mark", from: needed }] : []), ...(known(accepted) ? [{ kind: "dot", from: accepted }] : [])];
    return [
      task, whole(sums.requests), fixed(1)(speed(sums.tokens, sums.seconds)), percent(sums.drafting / sums.requests), percent(accepted),
      known(needed) && needed > 1 ? "none is enough" : percent(needed), line(1, shapes),
    ];
  });
}

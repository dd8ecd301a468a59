// The page of one request: what was expected, what was measured, and why.

import { asked } from "./gateway.js";
import { key, line, spans } from "./figures.js";
import { amount, brief, byId, day, details, element, fixed, known, link, percent, share, show, some, speed, table, term, whole, NONE } from "./elements.js";
import { facts } from "./lanes.js";
import { statusOf } from "./requests.js";

const SURE = 1.96; // standard deviations: 95 %

export async function showRequest(number) {
  const place = byId("one-request");
  show(place, back(), element("h2", `Request ${number}`), element("p.empty", "Asking the gateway …"));
  try {
    const found = await asked(`/paceline/requests/${encodeURIComponent(number)}`);
    show(place, back(), ...parts(found));
  } catch (error) {
    show(place, back(), element("h2", `Request ${number}`), element("p.problem", error.message));
    throw error;
  } finally {
    place.querySelector("h2").tabIndex = -1;
    place.querySelector("h2").focus({ preventScroll: true });
  }
}

const back = () => element("p", link("#requests", "← All requests"));

function parts(one) {
  one = { predictions: {}, decision: {}, signals: null, placement: null, ...one }; // of a process that has ended less is known
  const seen = one.observed, chosen = one.predictions[one.lane];
  return [
    element("h2", `Request ${one.number}`),
    element("p.lead", statusOf(one), ` ${one.task} on ${one.lane}, ended ${day(one.at_s)}, took ${brief(one.total_s)}`),
    one.error && element("p.problem", one.error),
    element("section", element("h3", "Why"), element("p", one.why), element("p.soft", `In short: ${one.reason}`)),
    element("section", element("h3", "Where its time went"), timing(one)),
    element("section", element("h3", "Expected and measured"), compared(one, chosen), note(one, chosen)),
    Object.keys(one.predictions).length > 0 && element("section", element("h3", "What was expected of each lane"), predictions(one)),
    drafts(seen),
    one.placement && element("section", element("h3", "Where it might have gone"), places(one.placement)),
    one.signals && element("section", element("h3", "What was found in it"), signals(one.signals)),
    element("section", element("h3", "The request"), facts([
      ["Model", one.model], ["Address", one.path], ["Streamed", one.stream ? "yes" : "no"], ["Client's key", one.client], ["Client's name for it", one.id],
      ["Cost", known(one.cost) ? `${one.cost_is_estimate ? "about " : ""}${amount(one.cost)}` : null],
      ["Sent to engines", one.deliveries], ["Failed on before", one.failed.map(([lane]) => lane).join(", ")], ["Fingerprint of engine and model", one.fingerprint],
      ["Requests beside it", fixed(1)(one.beside)],
    ]), details("raw", "All of it as JSON", element("pre", JSON.stringify(one, null, 1)))),
  ];
}

function timing(one) {
  const first = one.first_byte_s, rest = Math.max(0, one.total_s - one.queue_s - one.decision_s - (first ?? 0));
  const named = one.stream
    ? [["until the first token", first ?? 0, "b"], ["writing the answer", rest, "c"]]
    : [["until the answer came whole", (first ?? 0) + rest, "c"]];
  const spent = [["deciding", one.decision_s, "d"], ["waiting for its turn", one.queue_s, "a"], ...named];
  return [spans(spent), element("ul.key", spent.map(([name, seconds, kind]) => element("li", element(`span.swatch.${kind}`), ` ${name} ${brief(seconds)}`)))];
}

/** Beside each other, with whether that is within what was to be expected. */
function compared(one, chosen) {
  const seen = one.observed, took = speed(seen.decode_s, seen.decode_tokens), rows = [];
  if (chosen) {
    const spread = Math.hypot(chosen.relative_spread, chosen.request_spread), expected = known(chosen.ms_per_token) ? chosen.ms_per_token / 1000 : null;
    const [low, high] = known(expected) ? [expected * Math.exp(-SURE * spread), expected * Math.exp(SURE * spread)] : [null, null];
    const judged = !known(took) || !known(expected) ? NONE : took < low ? "faster than expected" : took > high ? "slower than expected" : "as expected";
    rows.push(["time per token", known(expected) ? `${brief(expected)} (${brief(low)} to ${brief(high)})` : NONE, brief(took), judged]);
    rows.push(["tokens of the answer", fixed(0)(chosen.tokens), whole(seen.completion_tokens), NONE]);
    rows.push(["reading the prompt", brief(chosen.prefill_s), brief(seen.prefill_s), known(seen.cached_tokens) ? `${whole(seen.prompt_tokens)} tokens read, ${whole(seen.cached_tokens)} from the cache` : NONE]);
    if (known(chosen.acceptance)) rows.push([term("accepted", "acceptance"), percent(chosen.acceptance), seen.drafted ? `${percent(seen.accepted / seen.drafted)} of ${whole(seen.drafted)}` : NONE,
      known(one.break_even_share) ? `pays from ${percent(one.break_even_share)}` : NONE]);
  } else {
    rows.push(["time per token", NONE, brief(took), NONE], ["tokens of the answer", NONE, whole(seen.completion_tokens), NONE]);
  }
  return table("Expected and measured", [["what", "text"], ["expected", "number"], ["measured", "number"], ["so", "text"]], rows);
}

function note(one, chosen) {
  if (!chosen) return element("p.soft", "Nothing was predicted: the request was not decided on.");
  return element("p.soft", `It was picked with `, term("probability", "propensity"), ` ${share(one.propensity)}${one.explored ? ", to learn from it" : ""}.`);
}

function predictions(one) {
  const all = Object.entries(one.predictions), order = all.sort(([, some_], [, other]) => some_.plain_steps_per_token - other.plain_steps_per_token);
  const high = (each) => each.plain_steps_per_token * Math.exp(SURE * each.relative_spread);
  const most = 1.05 * Math.max(1, ...all.map(([, each]) => Math.min(3, high(each))));
  const rows = order.map(([lane, each]) => [
    element("span", lane, lane === one.decision.lane && element("strong", " (chosen)"), lane !== one.decision.lane && lane === one.lane && element("strong", " (served)")),
    known(each.ms_per_token) ? `${each.ms_per_token.toFixed(1)} ms` : NONE, share(each.plain_steps_per_token), `± ${percent(each.relative_spread)}`, percent(each.acceptance),
    known(each.break_even) ? `${each.break_even.toFixed(2)} ×` : NONE,
    line(most, [{ kind: "mark", from: 1 }, { kind: "interval", from: each.plain_steps_per_token * Math.exp(-SURE * each.relative_spread), to: high(each) }, { kind: "dot", from: each.plain_steps_per_token }]),
  ]);
  return [table("Predictions", [["lane", "text"], ["per token", "number"], [term("in plain steps", "plain-step"), "number"], [term("uncertainty", "uncertainty"), "number"], [term("accepted", "acceptance"), "number"],
    [term("step cost", "step-cost"), "number"], ["as a figure", "figure"]], rows), key([["dot", "time per token, with its 95 % interval; further left is faster"], ["mark", "a plain step"]])];
}

function drafts({ by_drafter: drafters, drafted, accepted, drafting_steps: steps }) {
  const rows = Object.entries(drafters).map(([kind, one]) => [kind, whole(one.steps), whole(one.drafted), whole(one.accepted), one.steps ? (1 + one.accepted / one.steps).toFixed(2) : NONE, one.accepted_by_position.join(", ") || NONE]);
  if (!rows.length && known(drafted)) rows.push(["all", whole(steps), whole(drafted), whole(accepted), steps ? (1 + accepted / steps).toFixed(2) : NONE, NONE]);
  if (!rows.length) return null;
  return element("section", element("h3", "What drafters did"), table("Drafters", [["drafter", "text"], ["steps", "number"], ["drafted", "number"], ["accepted", "number"],
    [term("tokens per step", "acceptance-length"), "number"], [term("accepted by position", "position"), "number"]], rows));
}

/** By engine, what its answer was taken to cost, or why it might not serve. */
export function places({ terms, struck }) {
  return table("Placement", [["engine", "text"], ["seconds", "number"], ["cost", "number"], ["poor", "number"], ["late", "number"], ["why not", "wide"]], [
    ...Object.entries(terms).map(([engine, one]) => [engine, fixed(1)(one.time_s), amount(one.cost), share(one.poor), share(one.late), NONE]),
    ...Object.entries(struck).map(([engine, why]) => [engine, NONE, NONE, NONE, NONE, why]),
  ]);
}

const SIGNALS = {
  tasks: "May be", evidence: "Told by", structure: "Structured answer", copy: "Copied from the prompt", prompt_chars: "Characters of the prompt", given_chars: "Characters of given text",
  temperature: "Temperature", top_p: "Top-p", max_tokens: "Most tokens", reasoning: "Reasoning", language: "Language", images: "Images", agent: "Agent", turns: "Turns", turn: "It follows", repeats: "Repeats itself",
};

export function signals(found) {
  return facts(Object.entries(SIGNALS).map(([name, words]) => {
    const value = found[name];
    if (name === "tasks") return [words, Object.entries(value).filter(([, each]) => each >= 0.005).map(([task, each]) => `${task} ${percent(each)}`).join(", ")];
    if (name === "copy" || name === "repeats") return [words, percent(value)];
    return [words, typeof value === "boolean" ? (value ? "yes" : "no") : typeof value === "number" ? whole(value) : some(value) === NONE ? null : value];
  }));
}

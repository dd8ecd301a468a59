// The box to try a prompt in.

import { ask, asked } from "./gateway.js";
import { byId, element, fixed, percent, setText, share, show, table } from "./elements.js";
import { places, signals } from "./one_request.js";

const CHAT = "/v1/chat/completions";

async function explain(body) {
  const found = await asked(`/paceline/explain${CHAT}`, body);
  setText(byId("decision"), `Would go to ${found.decision.lane}, with probability ${share(found.decision.propensity)}: ${found.decision.reason}`);
  const rows = Object.entries(found.predictions).map(([lane, one]) => [
    lane, fixed(1)(one.ms_per_token), share(one.plain_steps_per_token), `± ${percent(one.relative_spread)}`, percent(one.acceptance), percent(one.coverage),
  ]);
  show(byId("explained"),
    element("h3", "What is expected of each lane"),
    table("Predictions", [["lane", "text"], ["ms/token", "number"], ["in plain steps", "number"], ["uncertainty", "number"], ["accepted", "number"], ["of the text", "number"]], rows),
    found.placement && element("h3", "Where it may go, and what that is taken to cost"), found.placement && places(found.placement),
    element("h3", "What inspection found"), signals(found.signals));
  byId("answer").hidden = true;
}

async function send(body, lane) {
  const answer = await ask(CHAT, { ...body, stream: true }, lane ? { "x-paceline-lane": lane } : {});
  setText(byId("decision"), `${answer.headers.get("x-paceline-lane")}: ${answer.headers.get("x-paceline-reason")}`);
  show(byId("explained"));
  const shown = byId("answer");
  shown.textContent = "";
  shown.hidden = false;
  let rest = "";
  for await (const piece of pieces(answer.body)) {
    const lines = (rest + piece).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: {")) shown.textContent += textOf(JSON.parse(line.slice(6)));
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

/** `onError` is told what went wrong, beside what stands in the page. */
export function listenToTry(onError) {
  byId("try-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = { messages: [{ role: "user", content: byId("prompt").value }], max_tokens: Number(byId("max-tokens").value) };
    const buttons = byId("try-form").querySelectorAll("button");
    for (const button of buttons) button.disabled = true;
    setText(byId("decision"), "…");
    try {
      if (event.submitter && event.submitter.value === "send") await send(body, byId("lane").value);
      else await explain(body);
    } catch (error) {
      onError(error);
      setText(byId("decision"), error.message);
    } finally {
      for (const button of buttons) button.disabled = false;
      if (event.submitter) event.submitter.focus();
    }
  });
}

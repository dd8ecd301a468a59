// What words mean: in a list at the page's end, and where the pointer or the focus is.

import { byId, element } from "./elements.js";

const WORDS = {
  engine: ["Engine", "An inference server that answers requests, such as llama-server or vLLM."],
  lane: ["Lane", "One engine with one way of decoding: plain, or with a drafter and a longest draft. Routing chooses a lane for each request."],
  drafter: ["Drafter", "What proposes several tokens at once, so that the model only has to verify them: a lookup in the text so far, a small model, a head of the model itself."],
  acceptance: ["Accepted", "Of the tokens that were drafted, the share that the model would have written itself. Only those save time; the rest was work for nothing."],
  "break-even": ["Break-even", "The accepted share from which on drafting is as fast as plain decoding here. Below it drafts cost more time than they save, above it they save some."],
  position: ["Accepted by position", "The share of drafts whose first, second, … token was accepted along with all before it. It falls with each position, so that longer drafts bring less and less."],
  adds: ["What a position costs", "What verifying one more drafted token adds to a step, in plain steps. The position pays as long as its token is accepted in a larger share of drafts than that."],
  "plain-step": ["Plain step", "One pass of the model that makes one token without a draft. Its duration is the unit for the cost of other steps."],
  "step-cost": ["Step cost", "How long a step takes that verifies a draft, in plain steps: 1.4 means that it takes as long as 1.4 tokens without drafts."],
  "acceptance-length": ["Tokens per step", "How many tokens a verification step yields, the model's own included. Drafting pays where this is more than the step costs."],
  control: ["Draft control", "The engine decides at each step whether to draft, with which drafter and how far. Routing gives it a start, and what it sees in the answer corrects that."],
  "first-token": ["Time to the first token", "From a request's arrival to the first piece of its answer, waiting included. It is known of streamed answers. p50 is the middle one; 95 of 100 are below p95."],
  speed: ["Tokens per second", "How fast an answer is written once it has begun, on average over all tokens."],
  explored: ["Explored", "A lane that was not expected to be the fastest was tried, to learn from it. The share of time that this may cost is bounded (routing.exploration)."],
  propensity: ["Probability", "With which the lane was picked for this request. It is below 1 where lanes are tried to learn; the report needs it to compare fairly."],
  uncertainty: ["Uncertainty", "By how much the expected time may be wrong, as a standard deviation: of the mean of requests like this one, what is not known yet."],
  interval: ["95 % interval", "The range in which the true value lies in 95 of 100 cases. Where it holds 1, it cannot be told yet which side is faster."],
  fixed: ["Always …", "What the same requests would have taken, had all of them gone down one lane: estimated from the log. Above 1, routing was faster than that."],
  hindsight: ["Best of each task", "What one would have done knowing beforehand which lane is best for each task. Nobody can know that; it shows how much there is left to gain."],
  cached: ["From the cache", "Prompt tokens that the engine still had from an earlier request, so that it need not read them again."],
};

export function explainWords() {
  byId("glossary").replaceChildren(...Object.entries(WORDS).flatMap(([word, [name, meaning]]) => {
    const about = element("dd", meaning);
    about.id = `word-${word}`;
    return [element("dt", name), about];
  }));
  for (const event of ["focusin", "pointerover", "click"]) document.addEventListener(event, ({ target }) => explain(target.closest?.(".term")));
  for (const event of ["focusout", "scroll"]) document.addEventListener(event, hide, true);
  document.addEventListener("pointerout", ({ target }) => target.closest?.(".term") && hide());
  document.addEventListener("keydown", ({ key }) => key === "Escape" && hide());
}

function explain(word) {
  if (!word) return;
  const tip = byId("tip"), place = word.getBoundingClientRect();
  tip.textContent = WORDS[word.dataset.word][1];
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(place.left, window.innerWidth - width - 8))}px`;
  const below = place.bottom + 6;
  tip.style.top = `${below + height > window.innerHeight ? place.top - height - 6 : below}px`;
}

function hide() {
  byId("tip").hidden = true;
}

// Where requests went and why, what that saves, and what is spent of each budget.

import { bar } from "./figures.js";
import { amount, byId, day, element, percent, setText, show, table, whole, NONE } from "./elements.js";

export function showMoney({ money, budgets }) {
  byId("money").hidden = document.querySelector("[data-for=money]").hidden = !money;
  if (!money) return;
  setText(byId("saved"), money.verdict);
  const hasAnswers = money.engines.some((engine) => engine.answers);
  show(byId("places"), element("p.soft", `${hasAnswers ? "Answers" : "No answers yet"} since ${day(money.since_s)}; money in ${money.currency}`),
    table("Where requests went", [["engine", "text"], ["where", "text"], ["answers", "number"], ["paid", "number"], ["why", "wide"]], money.engines.map((engine) => [
      engine.engine, engine.is_cloud ? "a provider's" : "one's own", whole(engine.answers), paidTo(engine),
      Object.entries(engine.why).map(([why, count]) => `${why}: ${count}`).join("; ") || NONE,
    ])));
  if (!budgets.length) return show(byId("budgets"));
  show(byId("budgets"), element("p.soft", "What is spent of each budget in the present day or month (UTC), with what running requests are expected to cost"),
    table("Budgets", [["budget", "text"], ["spent", "number"], ["limit", "number"], ["share", "number"], ["as a figure", "figure"]], budgets.map(({ key: name, per, spent, limit }) => [
      `this ${per}${name ? `, ${name}` : ""}`, amount(spent), amount(limit), limit ? percent(spent / limit) : NONE, bar(limit ? spent / limit : 1, spent >= limit),
    ])));
}

function paidTo({ is_cloud: isCloud, paid, estimates, unpriced }) {
  if (!isCloud) return NONE;
  const unsure = [...(estimates ? [`${estimates} estimated`] : []), ...(unpriced ? [`${unpriced} of unknown price`] : [])];
  return amount(paid) + (unsure.length ? ` (${unsure.join(", ")})` : "");
}

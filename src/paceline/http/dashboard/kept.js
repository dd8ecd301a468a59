// What is kept of requests, what is shared with other gateways, and where else to look.

import { facts } from "./lanes.js";
import { byId, counted, element, lasting, link, show, whole } from "./elements.js";

export function showState({ log, sharing, power, version, routing_failures: failures, started_s: started, now_s: now }) {
  const failed = Object.entries(failures).map(([part, count]) => `${part} ${counted(count, "time")}`).join(", ");
  show(byId("state"),
    element("article", element("h3", "Decision log"), log
      ? facts([["State", log.problem ? element("span.bad", `can't be written: ${log.problem}`) : element("span.good", "is written")],
        ["File", log.path], ["Written since the start", counted(log.written, "entry").replace("entrys", "entries")], ["Waiting", whole(log.waiting)], ["Lost", whole(log.lost)]])
      : element("p.soft", "None is kept (evidence.log is off), so that nothing can be proved later.")),
    element("article", element("h3", "Sharing with other gateways"), sharing ? facts(Object.entries(sharing).map(([name, value]) => [worded(name), shown(value)])) : element("p.soft", "This gateway learns by itself; nothing is shared.")),
    element("article", element("h3", "Gateway"), facts([
      ["Version", version], ["Runs since", started ? lasting(now - started) : null],
      ["Parts of routing that failed", failed || "none"],
      ["Power", power ? `${power.busy_watts.toFixed(0)} W at work, ${power.idle_watts.toFixed(0)} W idle` : null],
    ])),
    element("p.soft", "More: ", link("/metrics", "metrics for Prometheus"), ", ", link("/health", "health"), ", ", link("/v1/models", "models"),
      "; ", element("code", "paceline report"), " proves what routing brought, ", element("code", "paceline export"), " gives the log as a table."));
}

const worded = (name) => `${name[0].toUpperCase()}${name.slice(1).replaceAll("_", " ")}`;

function shown(value) {
  if (value === null || value === undefined || value === "") return "none";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return Number.isInteger(value) ? whole(value) : value.toPrecision(3);
  if (Array.isArray(value)) return value.map(shown).join(", ") || "none";
  return typeof value === "object" ? Object.entries(value).map(([name, each]) => `${worded(name)} ${shown(each)}`).join("; ") : String(value);
}

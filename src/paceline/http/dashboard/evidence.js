// What routing brought: the log's requests against what always one lane would have made of them.

import { key, line } from "./figures.js";
import { byId, element, groupRow, setText, share, show, table, term } from "./elements.js";

export function showReport({ comparisons, verdict }) {
  setText(byId("verdict"), verdict);
  if (!comparisons.length) return show(byId("policies"));
  const most = 1.1 * Math.max(1, ...comparisons.flatMap((one) => one.policies.map((policy) => policy.high)));
  const columns = [["policy", "text"], ["time over that of routing", "number"], [term("95 % interval", "interval"), "number"], ["so routing is", "text"], ["as a figure", "figure"]];
  const rows = comparisons.flatMap((one) => [groupRow(one.about, columns.length), ...one.policies.map((policy) => policyRow(policy, most))]);
  show(byId("policies"), table("What other settings would have taken on the same requests", columns, rows),
    key([["dot", "estimate, with its 95 % interval"], ["mark", "as fast as routing"]]));
}

function policyRow({ name, ratio, low, high }, most) {
  const word = name.startsWith("always") ? "fixed" : "hindsight";
  return [term(name, word), share(ratio), `${share(low)} to ${share(high)}`, low > 1 ? "faster" : high < 1 ? "slower" : "cannot be told yet",
    line(most, [{ kind: "mark", from: 1 }, { kind: "interval", from: low, to: high }, { kind: "dot", from: ratio }])];
}

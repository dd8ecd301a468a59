// Asks the gateway once a second, and shows what it tells.

import { showDrafters, showTasks } from "./drafting.js";
import { byId, clock, setText } from "./elements.js";
import { showReport } from "./evidence.js";
import { asked, NeedsKey, useKey } from "./gateway.js";
import { showState } from "./kept.js";
import { showLanes } from "./lanes.js";
import { showRequest } from "./one_request.js";
import { healthOf, showOverview } from "./overview.js";
import { showMoney } from "./places.js";
import { listenToFilter, showEnded, showRunning } from "./requests.js";
import { listenToTry } from "./try.js";
import { explainWords } from "./words.js";

const INTERVAL_MS = 1000;
const SLOW_EVERY = 10; // rounds between two looks at what costs the gateway more and changes slowly
const MAX_REQUESTS = 1000;
const RANGE = "paceline range";
const REQUEST = /^#request\/(\d+)$/;

let last = 0;
let rounds = 0;
let isPaused = false;
let requests = [];
let heardAt = null;
const told = {}; // the last documents

async function update() {
  const lanes = (told.lanes = await asked("/paceline/lanes"));
  showStatus(lanes);
  showLanes(lanes);
  showMoney(lanes);
  showState(lanes);
  showRunning(lanes.running);
  const found = await asked(`/paceline/requests?after=${last}`);
  if (found.last < last) {
    [last, requests] = [0, []]; // the gateway was started again
    return;
  }
  if (found.requests.length || rounds === 0) {
    requests = [...requests, ...found.requests].slice(-MAX_REQUESTS);
    showTasks(requests);
  }
  showEnded(requests, lanes.money);
  last = found.last;
  if (rounds++ % SLOW_EVERY === 0) {
    told.history = await asked(`/paceline/history?range_s=${byId("range").value}`);
    showDrafters(await asked("/paceline/drafting"));
    showOverview(told); // before the report, which may take seconds the first time
    told.report = await asked("/paceline/report");
    showReport(told.report);
  }
  showOverview(told);
}

function showStatus(lanes) {
  const { kind, word, many, running } = healthOf(lanes);
  byId("status").className = `pill ${kind}`;
  setText(byId("status"), `${word}: ${many}, ${running} in flight`);
  document.title = kind === "good" ? "Paceline" : `${word} – Paceline`;
}

function wantKey(why) {
  byId("status").className = "pill warn";
  setText(byId("status"), "A key is needed");
  setText(byId("key-why"), why);
  byId("key-form").hidden = false;
  byId("overview").hidden = byId("one-request").hidden = true;
}

/** Show the whole, or the one request that the address names. */
async function route() {
  const [, number] = REQUEST.exec(location.hash) || [];
  byId("overview").hidden = number !== undefined;
  byId("one-request").hidden = number === undefined;
  if (number === undefined) {
    const part = byId(location.hash.slice(1));
    if (part && location.hash.length > 1) part.scrollIntoView();
    return;
  }
  window.scrollTo(0, 0);
  await showRequest(number).catch(trouble);
}

function trouble(error) {
  if (error instanceof NeedsKey) wantKey(error.message);
}

async function run() {
  if (!isPaused && !document.hidden) {
    try {
      await update();
      heardAt = Date.now() / 1000;
      if (!byId("key-form").hidden) {
        byId("key-form").hidden = true;
        await route();
      }
      byId("trouble").hidden = true;
      document.body.classList.remove("stale");
    } catch (error) {
      if (error instanceof NeedsKey) wantKey(error.message);
      else sayLost(error);
    }
  }
  setTimeout(run, INTERVAL_MS);
}

function sayLost(error) {
  byId("status").className = "pill bad";
  setText(byId("status"), "The gateway does not answer");
  document.title = "No answer – Paceline";
  document.body.classList.add("stale");
  setText(byId("trouble"), `The gateway does not answer (${error.message}). ${heardAt ? `What stands below is of ${clock(heardAt)}.` : "Is it running? `paceline serve` starts it."} This page goes on asking.`);
  byId("trouble").hidden = false;
}

byId("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  byId("pause").setAttribute("aria-pressed", String(isPaused));
  document.body.classList.toggle("paused", isPaused);
});
byId("range").value = localStorage.getItem(RANGE) || byId("range").value;
if (byId("range").selectedIndex < 0) byId("range").value = "3600";
byId("range").addEventListener("change", async () => {
  localStorage.setItem(RANGE, byId("range").value);
  told.history = await asked(`/paceline/history?range_s=${byId("range").value}`).catch(() => told.history);
  showOverview(told);
});
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(byId("key").value);
  rounds = 0;
});
for (const event of ["resize", "hashchange"]) window.addEventListener(event, () => told.history && showOverview(told));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => showOverview(told));
window.addEventListener("hashchange", route);
explainWords();
listenToFilter();
listenToTry(trouble);
route();
run();

// Charts over time, drawn by uPlot, which is fetched when there is something to draw.

import { brief, clock, counted, element, fixed, percent, setText, whole } from "./elements.js";

const HEIGHT = 150;
const MAX_LANES = 5;
const DASHES = [[], [6, 3], [2, 3], [8, 3, 2, 3], [1, 4]];
const DAY_S = 86400;

let library = null; // a promise, from when it is first wanted
let drawn = { signature: "", charts: [] };

function fetched() {
  library ??= new Promise((done, failed) => {
    const style = element("link"), script = element("script");
    style.rel = "stylesheet";
    style.href = "page/uplot.css";
    script.src = "page/uplot.js";
    script.addEventListener("load", () => done(globalThis.uPlot));
    script.addEventListener("error", () => failed(new Error("page/uplot.js can't be loaded")));
    document.head.append(style, script);
  });
  return library;
}

/** What is drawn: a title, its columns and how their numbers are written. */
function wanted({ slices, lanes, total }) {
  const names = Object.keys(lanes), shown = names.slice(0, MAX_LANES - (names.length > MAX_LANES ? 1 : 0));
  const rest = names.slice(shown.length);
  const others = rest.length ? [["other lanes", slices.requests.map((_, at) => rest.reduce((sum, name) => sum + lanes[name][at], 0))]] : [];
  return [
    { title: "Requests", form: whole, bars: true, lines: [["all", slices.requests], ["failed", slices.failed, "bad"]],
      about: `${counted(total.requests, "request")}, ${total.failed} failed` },
    { title: "Tokens per second of an answer", form: fixed(1), lines: [["tokens/s", slices.tokens_per_s]],
      about: `${fixed(1)(total.tokens_per_s)} on average` },
    { title: "Time to the first token", form: brief, lines: [["p50", slices.first_token_p50_s], ["p95", slices.first_token_p95_s]],
      about: `p50 ${brief(total.first_token_p50_s)}, p95 ${brief(total.first_token_p95_s)}` },
    { title: "Accepted of what was drafted", form: percent, lines: [["accepted", slices.acceptance]],
      about: total.drafted ? `${percent(total.acceptance)} of ${counted(total.drafted, "token")}` : "nothing was drafted" },
    ...(names.length > 1 ? [{ title: "Requests by lane", form: whole, lines: [...shown.map((name) => [laneName(name), lanes[name]]), ...others],
      about: names.map((name) => `${laneName(name)} ${lanes[name].reduce((sum, count) => sum + count, 0)}`).join(", ") }] : []),
  ].filter(({ lines }) => lines.some(([, values]) => values.some((value) => value !== null)));
}

const laneName = (name) => (name === "none" ? "no lane" : name); // what was refused before one was chosen

export async function showCharts(place, history) {
  if (!history.total.requests) {
    drawn = clear(place);
    return setText(place, "");
  }
  let uPlot;
  try {
    uPlot = await fetched();
  } catch (error) {
    return setText(place, error.message);
  }
  const charts = wanted(history);
  const width = columnWidth(place);
  const signature = JSON.stringify([width, charts.map(({ title, lines }) => [title, lines.map(([name]) => name)]), colour("--back"), history.range_s]);
  if (signature !== drawn.signature) {
    clear(place);
    drawn = { signature, charts: charts.map((chart) => made(uPlot, place, chart, width, history)) };
  }
  const from = Math.max(0, history.times_s.findIndex((at) => at + history.width_s > history.since_s)); // nothing is known from before
  charts.forEach((chart, number) => {
    const { plot, about } = drawn.charts[number];
    about(chart.about);
    plot.setData([history.times_s.slice(from), ...chart.lines.map(([, values]) => values.slice(from))]);
  });
}

function clear(place) {
  for (const { plot } of drawn.charts) plot.destroy();
  place.replaceChildren();
  return (drawn = { signature: "", charts: [] });
}

function columnWidth(place) {
  const style = getComputedStyle(place);
  return Math.floor(parseFloat(style.gridTemplateColumns) || place.clientWidth);
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function made(uPlot, place, chart, width, history) {
  const colours = [colour("--accent"), colour("--mark"), colour("--good"), colour("--second"), colour("--soft")];
  const strokes = chart.lines.map(([, , kind], number) => (kind === "bad" ? colour("--bad") : colours[number]));
  const title = element("figcaption"), sum = element("span.soft"), values = element("p.values"), canvas = element("div");
  const keys = chart.lines.length > 1
    ? element("ul.key", chart.lines.map(([name], number) => element("li", swatch(strokes[number], DASHES[number]), " ", name)))
    : null;
  title.append(element("strong", chart.title), " ", sum);
  const figure = element("figure", title, canvas, keys, values);
  canvas.setAttribute("aria-hidden", "true"); // the caption says the same in words
  place.append(figure);
  const format = history.range_s > DAY_S ? (at) => new Date(1000 * at).toLocaleDateString("en-GB", { day: "numeric", month: "short" }) : (at) => clock(at).slice(0, 5);
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const options = {
    width, height: HEIGHT, legend: { show: false }, cursor: { sync: { key: "time" }, drag: { x: false, y: false }, points: { size: 6 } },
    scales: { y: { range: (_, __, most) => [0, Math.max(most || 0, 1e-9) * 1.1] } },
    axes: [{ ...axis, size: 28, values: (_, ticks) => ticks.map(format) }, { ...axis, size: 58, values: (_, ticks) => ticks.map((tick) => (tick === 0 ? "0" : chart.form === whole && tick % 1 ? "" : chart.form(tick))) }],
    series: [{}, ...chart.lines.map(([name], number) => ({
      label: name, stroke: strokes[number], width: 2, dash: DASHES[number], points: { size: 4, show: alone },
      ...(chart.bars ? { fill: strokes[number], width: 0, paths: uPlot.paths.bars({ size: [0.8, 20] }), points: { show: false } } : {}),
    }))],
    hooks: { setCursor: [(plot) => setText(values, atCursor(plot, chart))] },
  };
  return { plot: new uPlot(options, [[], ...chart.lines.map(() => [])], canvas), about: (text) => setText(sum, text) };
}

/** Points that no line leads to, since their neighbours are not known. */
function alone(plot, series, first, last) {
  const values = plot.data[series];
  const places = [];
  for (let at = first; at <= last; at++) if (values[at] !== null && (values[at - 1] ?? null) === null && (values[at + 1] ?? null) === null) places.push(at);
  return places.length > 0;
}

function atCursor(plot, { lines, form }) {
  const at = plot.cursor.idx;
  if (at === null || at === undefined || !plot.data[0].length) return "";
  const parts = lines.map(([name], number) => `${name} ${form(plot.data[number + 1][at] ?? null)}`);
  return `${clock(plot.data[0][at]).slice(0, 5)}: ${parts.join(", ")}`;
}

function swatch(stroke, dash) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", "svg"), sample = document.createElementNS("http://www.w3.org/2000/svg", "line");
  for (const [name, value] of Object.entries({ width: 22, height: 8, "aria-hidden": "true" })) made.setAttribute(name, value);
  for (const [name, value] of Object.entries({ x1: 1, x2: 21, y1: 4, y2: 4, stroke, "stroke-width": 3, "stroke-dasharray": dash.join(" ") })) sample.setAttribute(name, value);
  made.append(sample);
  return made;
}

// Where the time of each turn goes: drawn from `/v1/latency`, once a second while the page is seen.

import { ask } from "./door.js";
import { STAGES, html, legend, ms, svg, total } from "./stages.js";

const at = (id) => document.getElementById(id);
const EVERY_MS = 1_000;
const SHOWN = 40;
const GOAL_MS = 600;
const QUANTILES = ["p50", "p90", "p95", "p99", "n"];

let tag = null;
let known = null;
let chosen = null;
let followed = true; // until somebody chooses a turn, the newest one is shown

async function look() {
  if (document.hidden) return;
  try {
    const response = await ask("/v1/latency", { headers: tag ? { "If-None-Match": tag } : {} });
    if (response.status !== 304) {
      if (response.status === 401) return live("lost", "a key is needed: enter it on the page to talk, in this tab");
      if (!response.ok) throw new Error(String(response.status));
      tag = response.headers.get("ETag");
      known = await response.json();
      draw();
    }
    live("listening", "live");
  } catch {
    live("lost", "the gateway does not answer");
  }
}

function live(state, text) {
  at("live").dataset.state = state;
  at("live").textContent = text;
}

function draw() {
  const turns = known.turns.filter((turn) => turn.total_ms > 0).slice(-SHOWN);
  if (followed || !turns.some((turn) => turn.id === chosen)) chosen = turns.at(-1)?.id ?? null;
  tiles();
  bars(turns);
  waterfall(turns.find((turn) => turn.id === chosen));
  table();
  now();
}

function now() {
  const rows = known.stages.map(({ stage, replicas, up, free_slots: free, slots }) =>
    html("tr", {}, ...[stage, `${up} of ${replicas}`, slots - free, slots].map((cell) => html("td", {}, String(cell)))),
  );
  at("now").tBodies[0].replaceChildren(...rows);
}

function tiles() {
  const { sums, turn_count: count } = known.summary;
  const value = (name, quantile) => (sums[name] ? ms(sums[name][quantile]) : "–");
  const tile = (big, small) => html("div", { className: "tile" }, html("b", {}, big), html("span", {}, small));
  at("tiles").replaceChildren(
    tile(value("heard", "p50"), "speech end → heard, p50"),
    tile(value("first_audio", "p50"), "speech end → first packet, p50"),
    tile(value("first_audio", "p95"), "the same, p95"),
    tile(value("first_packet", "p50"), "turn decided → first packet, p50"),
    tile(String(count), count === 1 ? "turn measured" : "turns measured"),
    tile(known.sessions.limit ? `${known.sessions.active} / ${known.sessions.limit}` : String(known.sessions.active), "sessions now"),
  );
}

function bars(turns) {
  const picture = at("turns");
  const [width, height, left, bottom] = [960, 240, 54, 22];
  picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const most = Math.max(GOAL_MS * 1.1, ...turns.map((turn) => total(turn.stages_ms)));
  const y = (value) => (height - bottom) * (1 - value / most) + 6 * (value / most);
  const parts = [];
  for (const value of ticks(most)) {
    parts.push(svg("line", { class: "axis", x1: left, x2: width, y1: y(value), y2: y(value) }));
    parts.push(svg("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, `${value}`));
  }
  parts.push(svg("line", { class: "goal", x1: left, x2: width, y1: y(GOAL_MS), y2: y(GOAL_MS) }));
  const step = (width - left) / Math.max(12, turns.length);
  turns.forEach((turn, index) => {
    const label = `turn ${turn.turn} of session ${turn.session_id.slice(0, 8)}: ${ms(total(turn.stages_ms))}`;
    const group = svg("g", { class: "row", tabindex: 0, role: "button", "aria-label": label, "aria-pressed": turn.id === chosen });
    const x = left + index * step;
    group.append(svg("rect", { class: turn.id === chosen ? "chosen" : "", x, y: 0, width: step, height: height - bottom, "fill-opacity": turn.id === chosen ? 1 : 0 }));
    let sum = 0;
    for (const [name] of STAGES) {
      const value = turn.stages_ms[name] ?? 0;
      if (value) group.append(svg("rect", { class: `s-${name}`, x: x + step * 0.16, width: step * 0.68, y: y(sum + value), height: Math.max(0.5, y(sum) - y(sum + value)) }));
      sum += value;
    }
    group.append(svg("title", {}, label));
    group.append(svg("text", { x: x + step / 2, y: height - 6, "text-anchor": "middle" }, `${turn.turn}${turn.ended === "CANCELLED" ? " ⟂" : ""}`));
    const choose = () => {
      chosen = turn.id;
      followed = turn.id === turns.at(-1).id;
      draw();
    };
    group.addEventListener("click", choose);
    group.addEventListener("keydown", (event) => (event.key === "Enter" || event.key === " ") && (event.preventDefault(), choose()));
    parts.push(group);
  });
  if (!turns.length) parts.push(svg("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "No turn yet: talk to it, and it appears here."));
  const focused = [...picture.children].indexOf(document.activeElement);
  picture.replaceChildren(...parts);
  if (focused >= 0) picture.children[focused]?.focus();
}

function waterfall(turn) {
  const picture = at("fall");
  if (!turn) {
    at("fall-title").textContent = "Waterfall";
    picture.setAttribute("viewBox", "0 0 960 10");
    return picture.replaceChildren();
  }
  const ended = turn.ended ? `, ${turn.ended.toLowerCase()}${turn.error ? ` (${turn.error})` : ""}` : ", running";
  const when = new Date(turn.time * 1000).toLocaleTimeString();
  at("fall-title").textContent = `Turn ${turn.turn} by ${turn.transport} at ${when}: ${ms(total(turn.stages_ms))}${ended}`;
  const rows = STAGES.filter(([name]) => name in turn.stages_ms);
  const [width, row, left, right, top] = [960, 26, 150, 84, 20];
  const whole = total(turn.stages_ms) || 1;
  const x = (value) => left + ((width - left - right) * value) / whole;
  picture.setAttribute("viewBox", `0 0 ${width} ${top + row * rows.length + 6}`);
  const parts = [];
  for (const value of ticks(whole)) {
    parts.push(svg("line", { class: "axis", x1: x(value), x2: x(value), y1: top - 4, y2: top + row * rows.length }));
    parts.push(svg("text", { x: x(value), y: 12, "text-anchor": "middle" }, `${value} ms`));
  }
  let sum = 0;
  rows.forEach(([name, label, meaning], index) => {
    const value = turn.stages_ms[name];
    const y = top + index * row;
    parts.push(svg("text", { x: left - 10, y: y + 17, "text-anchor": "end" }, label));
    const bar = svg("rect", { class: `s-${name}`, x: x(sum), y: y + 4, width: Math.max(1.5, x(sum + value) - x(sum)), height: row - 8, rx: 3 });
    bar.append(svg("title", {}, meaning));
    parts.push(bar);
    parts.push(svg("text", { class: "sum", x: x(sum + value) + 8, y: y + 17 }, ms(value)));
    sum += value;
  });
  picture.replaceChildren(...parts);
}

function table() {
  const { stages } = known.summary;
  const head = html("tr", {}, html("th", { scope: "col" }, "stage"), ...QUANTILES.map((name) => html("th", { scope: "col" }, name)));
  at("stages").tHead.replaceChildren(head);
  const rows = STAGES.filter(([name]) => name in stages).map(([name, label, meaning]) =>
    html(
      "tr",
      { title: meaning },
      html("td", {}, html("span", { className: `key key-${name} inline` }), ` ${label}`),
      ...QUANTILES.map((quantile) => html("td", {}, quantile === "n" ? String(stages[name].n) : stages[name][quantile].toFixed(1))),
    ),
  );
  at("stages").tBodies[0].replaceChildren(...rows);
}

function ticks(most) {
  const rough = most / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, index) => Math.round(index * step * 100) / 100);
}

at("legend").replaceChildren(legend());
look();
setInterval(look, EVERY_MS);

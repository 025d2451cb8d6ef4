// The stages of a turn, in their order, with what each one is; and the bar that shows them.

export const STAGES = [
  ["endpoint", "end of turn", "you stop → it is sure that you stopped"],
  ["brain", "brain", "→ the first word of the answer"],
  ["gate", "gate", "→ enough words to begin to speak"],
  ["tts_lm", "speech model", "→ the first frame of speech"],
  ["codec", "codec", "→ the first sound of it"],
  ["encode", "encoder", "→ the first packet"],
  ["playout", "playout", "→ on its way to you"],
  ["client", "network + browser", "→ heard here"],
];

const SVG = "http://www.w3.org/2000/svg";

export function svg(name, attributes = {}, text = null) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  return element;
}

export function html(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

export const ms = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;

export function total(stagesMs) {
  return STAGES.reduce((sum, [name]) => sum + (stagesMs[name] ?? 0), 0);
}

export function spoken(stagesMs) {
  return STAGES.filter(([name]) => name in stagesMs)
    .map(([name, label]) => `${label} ${ms(stagesMs[name])}`)
    .join(", ");
}

// One bar; widths are shares of the turn.
export function bar(stagesMs) {
  const whole = total(stagesMs) || 1;
  const picture = svg("svg", {
    class: "bars",
    viewBox: "0 0 1000 12",
    preserveAspectRatio: "none",
    role: "img",
    "aria-label": `${ms(whole)} in all: ${spoken(stagesMs)}`,
  });
  let x = 0;
  for (const [name, label] of STAGES) {
    const width = ((stagesMs[name] ?? 0) / whole) * 1000;
    if (!width) continue;
    const part = svg("rect", { class: `s-${name}`, x, y: 0, width, height: 12 });
    part.append(svg("title", {}, `${label} ${ms(stagesMs[name])}`));
    picture.append(part);
    x += width;
  }
  return picture;
}

export function legend() {
  const list = html("ul", { className: "legend" });
  for (const [name, label, meaning] of STAGES) {
    list.append(html("li", { title: meaning }, html("span", { className: `key key-${name}` }), label));
  }
  return list;
}

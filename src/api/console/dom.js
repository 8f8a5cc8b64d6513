// Small helpers over the DOM. Text is always set as text, never as markup.

/** An element with attributes, properties that start with a dot, listeners that start with "on", and children. */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key.startsWith(".")) element[key.slice(1)] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Puts children in place of what is there, keeping the focus on what has the same address or name. */
export function fill(place, ...children) {
  const focused = place.contains(document.activeElement) ? document.activeElement : null;
  const mark = focused && (focused.getAttribute("href") ?? focused.id);
  const selection = focused instanceof HTMLInputElement ? focused.selectionStart : null;
  place.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
  if (!mark) return;
  const again = [...place.querySelectorAll("a[href], input, select, button")].find(
    (element) => (element.getAttribute("href") ?? element.id) === mark,
  );
  again?.focus({ preventScroll: true });
  if (selection !== null && again instanceof HTMLInputElement) again.setSelectionRange(selection, selection);
}

/** Text with what turns its direction or cannot be seen made visible. */
export function visible(text) {
  return text.replace(/[\p{Cc}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, (c) => {
    return `\\u{${c.codePointAt(0).toString(16)}}`;
  });
}

const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** A count as a tired reader takes it in. */
export function count(n) {
  return n < 100 ? String(Math.round(n * 10) / 10) : n < 10_000 ? String(Math.round(n)) : SHORT.format(n);
}

export function percent(share) {
  return `${(share * 100).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
}

export function duration(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

/** `key=value key=value`. */
export function descriptor(entries) {
  return entries.map((e) => (e.value === "" ? visible(e.key) : `${visible(e.key)}${e.shared ? "~" : "="}${visible(e.value)}`)).join("  ");
}

/** Where a rule is written; the file and its line stay together. */
export function source(rule) {
  const text = visible(rule.source);
  const name = text.lastIndexOf("/") + 1;
  return h("span", { class: "src" }, text.slice(0, name), h("wbr"), h("span", { class: "whole" }, text.slice(name)));
}

/** `a minute`, `an hour`. */
export function each(window) {
  return `${window.startsWith("hour") ? "an" : "a"} ${window}`;
}

const SVG = "http://www.w3.org/2000/svg";

/** Stacked bars: what passed, and what was denied on top. `points` have a width, `allowed` and `denied`. */
export function chart(points, label, kind = "chart") {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", kind);
  svg.setAttribute("preserveAspectRatio", "none");
  if (label) {
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", label);
  } else svg.setAttribute("aria-hidden", "true");
  const width = points.reduce((sum, point) => sum + point.width, 0) || 1;
  const top = Math.max(1e-9, ...points.map((point) => point.allowed + point.denied));
  svg.setAttribute("viewBox", `0 0 ${width} 100`);
  // Also of a long slice beside short ones.
  const gap = (point) => Math.min(point.width * 0.06, width * 0.004);
  let x = 0;
  for (const point of points) {
    const bar = (kind, from, size) => {
      if (size <= 0) return;
      const rect = document.createElementNS(SVG, "rect");
      rect.setAttribute("class", kind);
      rect.setAttribute("x", x + gap(point));
      rect.setAttribute("width", point.width - 2 * gap(point));
      rect.setAttribute("y", 100 - ((from + size) / top) * 100);
      rect.setAttribute("height", (size / top) * 100);
      svg.append(rect);
    };
    bar("allowed", 0, point.allowed);
    bar("denied", point.allowed, point.denied);
    x += point.width;
  }
  return svg;
}

/** A rate: a second, or a minute where it is small. */
function rate(perSecond) {
  const [n, unit] = perSecond < 1 ? [perSecond * 60, "min"] : [perSecond, "s"];
  return `${count(n < 10 ? n : Math.round(n))}/${unit}`;
}

/** A chart with its axes: how many, and how long ago. `seconds` is how far back it reaches. */
export function plot(points, seconds, label) {
  const top = Math.max(0, ...points.map((point) => point.allowed + point.denied));
  const ago = (part) => h("span", {}, part ? `${duration(seconds * part)} ago` : "now");
  return h("div", { class: "plot" }, h("div", { class: "y", "aria-hidden": "true" }, h("span", {}, top ? rate(top) : ""), h("span", {}, top ? rate(top / 2) : ""), h("span", {}, "0")),
    chart(points, label), h("div", { class: "x", "aria-hidden": "true" }, ago(1), ago(0.5), ago(0)));
}

/** How much there was of something, slice by slice, as a small line of bars. */
export function spark(values, seconds) {
  return chart(values.map((value, at) => ({ width: seconds[at] || 1, allowed: 0, denied: value / (seconds[at] || 1) })), "", "spark");
}

export function legend(...more) {
  return h("div", { class: "legend" },
    h("span", {}, h("i", { class: "d" }), "denied"), h("span", {}, h("i", { class: "a" }), "allowed"), ...more.map((text) => h("span", {}, text)));
}

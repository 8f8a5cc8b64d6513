// What happens now: decisions a second, and who is denied.

import { get } from "./api.js";
import { count, descriptor, fill, h, legend, percent, plot, spark, visible } from "./dom.js";
import { lookup, suggest } from "./lookup.js";

const choice = { by: "denied", window: "10m", filter: "" };

export function open(main, state) {
  const numbers = h("section", { class: "card numbers", "aria-label": "Decisions a second" });
  const graph = h("section", { class: "card", "aria-label": "Decisions a second, live" });
  const list = h("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": "Table" });
  const title = h("h2", {});
  const select = (name, label, options) => h("select", {
    id: name, "aria-label": label, onchange: (event) => { choice[name] = event.target.value; state.refresh(); },
  }, options.map(([value, text]) => h("option", { value, ".selected": choice[name] === value }, text)));
  const filter = h("input", {
    id: "filter", type: "search", placeholder: "Filter", "aria-label": "Filter keys", ".value": choice.filter,
    oninput: (event) => { choice.filter = event.target.value; rows(); },
  });
  fill(main, h("h1", { class: "skip" }, "Now"), h("div", { class: "glance" }, numbers, graph), h("section", { class: "card", "aria-label": "Keys" },
    h("div", { class: "tools" }, title, filter,
      select("by", "Order", [["denied", "most denied"], ["hits", "most asked"]]),
      select("window", "Window", [["1m", "1 minute"], ["10m", "10 minutes"], ["1h", "1 hour"]])), list, lookup()));
  let top = null;

  function rows() {
    title.textContent = choice.by === "denied" ? "Who is denied" : "Who asks most";
    if (!top) return;
    const needle = choice.filter.toLowerCase();
    const text = (counter) => `${counter.domain} ${counter.rule ?? ""} ${descriptor(counter.descriptor)}`.toLowerCase();
    const counters = top.counters.filter((counter) => text(counter).includes(needle));
    if (!counters.length) {
      if (needle) suggest(choice.filter);
      const empty = needle && top.counters.length ? `None of the ${top.counters.length} keys shown fits the filter. Any other is found by its name, below.`
        : top.hits === 0 ? "No decisions in this window. Is Envoy's rate limit filter pointed at this server's gRPC port?"
        : choice.by === "hits" ? `${count(top.hits)} decisions, spread over so many keys that none stands out.`
        : top.denied > 0 ? `${count(top.denied)} denied, spread over so many keys that none stands out.`
        : `Nobody was denied: ${count(top.hits)} decisions, all passed.`;
      return fill(list, h("p", { class: "empty" }, empty));
    }
    const most = Math.max(...counters.map((counter) => counter.share));
    fill(list, h("table", {}, h("thead", {}, h("tr", {},
      h("th", {}, "Key"), h("th", { class: "wide" }, "Rule"), h("th", { class: "n" }, "Denied"),
      h("th", { class: "n wide" }, "Decisions"), h("th", { class: "n" }, "Share"), h("th", { class: "wide" }, choice.by === "denied" ? "Denied over time" : "Asked over time"))),
    h("tbody", {}, counters.map((counter) => row(counter, most, top.slice_seconds)))));
  }

  return {
    async update() {
      const last = state.rates.slice(-5);
      const mean = (name) => last.reduce((sum, rate) => sum + rate[name], 0) / (last.length || 1);
      const [allowed, denied] = [mean("allowed"), mean("denied")];
      const all = allowed + denied;
      const number = (value, text, kind) => h("div", { class: "number" }, h("b", { class: kind ?? "" }, value), h("span", {}, text));
      // The first look tells no rate yet, which is not zero.
      const known = (text) => (last.length ? text : "–");
      fill(numbers, number(known(count(all)), "requests a second"),
        number(known(count(denied)), "denied a second", denied > 0 ? "bad" : ""), number(known(percent(all ? denied / all : 0)), "denied"));
      const idle = Array.from({ length: Math.max(0, 30 - state.rates.length) }, () => ({ width: 2, allowed: 0, denied: 0 }));
      const points = [...idle, ...state.rates];
      const peak = Math.max(0, ...state.rates.map((rate) => rate.allowed + rate.denied));
      fill(graph, h("h2", {}, "Requests a second since this page was opened"),
        plot(points, points.reduce((sum, point) => sum + point.width, 0), `${count(all)} requests a second, ${count(denied)} of them denied`),
        legend(`peak ${count(peak)}/s`));
      if (!state.status.top) {
        top = null;
        return fill(list, h("p", { class: "empty" }, "Frequent keys are not kept: the server was started with --top off."));
      }
      top = await get("top", { by: choice.by, window: choice.window, limit: 100, slices: true });
      rows();
    },
    fail(error) { fill(list, h("p", { class: "empty bad" }, error.message)); },
  };
}

function row(counter, most, seconds) {
  const bar = h("div", { class: "bar" });
  bar.style.width = `${Math.max(1, (counter.share / (most || 1)) * 100)}%`;
  const rule = counter.is_override ? "limit of the request" : counter.rule ?? (counter.shortened ? "too long to be looked up" : "rule of an older configuration");
  const exact = (value, error) => h("span", { title: error ? `at least ${value}, at most ${value + error}` : String(value) }, count(value));
  return h("tr", {},
    h("td", { class: "key" }, h("a", { href: `#/key/${counter.id}` }, descriptor(counter.descriptor) || "(unreadable)"),
      h("small", {}, visible(counter.domain), counter.shortened ? " · only its beginning is known" : ""), bar),
    h("td", { class: "wide key" }, visible(rule)),
    h("td", { class: "n bad" }, exact(counter.denied, counter.denied_error)),
    h("td", { class: "n wide" }, exact(counter.hits, counter.hits_error)),
    h("td", { class: "n" }, percent(counter.share)),
    h("td", { class: "wide" }, counter.slices ? spark(counter.slices, seconds) : ""));
}

// What happens now: decisions a second, and who is denied.

import { get } from "./api.js";
import { chart, count, descriptor, fill, h, legend, percent } from "./dom.js";

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
  fill(main, h("h1", { class: "skip" }, "Now"), numbers, graph, h("section", { class: "card", "aria-label": "Keys" },
    h("div", { class: "tools" }, title, filter,
      select("by", "Order", [["denied", "most denied"], ["hits", "most asked"]]),
      select("window", "Window", [["1m", "1 minute"], ["10m", "10 minutes"], ["1h", "1 hour"]])), list));
  let top = null;

  function rows() {
    title.textContent = choice.by === "denied" ? "Who is denied" : "Who asks most";
    if (!top) return;
    const needle = choice.filter.toLowerCase();
    const text = (counter) => `${counter.domain} ${counter.rule ?? ""} ${descriptor(counter.descriptor)}`.toLowerCase();
    const counters = top.counters.filter((counter) => text(counter).includes(needle));
    if (!counters.length) {
      const empty = needle && top.counters.length ? `None of the ${top.counters.length} keys shown fits the filter. For any other: sluicegate explain, counters, reset.`
        : top.hits === 0 ? "No decisions in this window. Is Envoy's rate limit filter pointed at this server's gRPC port?"
        : choice.by === "hits" ? `${count(top.hits)} decisions, spread over so many keys that none stands out.`
        : top.denied > 0 ? `${count(top.denied)} denied, spread over so many keys that none stands out.`
        : `Nobody was denied: ${count(top.hits)} decisions, all passed.`;
      return fill(list, h("p", { class: "empty" }, empty));
    }
    const most = Math.max(...counters.map((counter) => counter.share));
    fill(list, h("table", {}, h("thead", {}, h("tr", {},
      h("th", {}, "Key"), h("th", { class: "wide" }, "Rule"), h("th", { class: "n" }, "Denied"),
      h("th", { class: "n wide" }, "Decisions"), h("th", { class: "n" }, "Share"))),
    h("tbody", {}, counters.map((counter) => row(counter, most)))));
  }

  return {
    async update() {
      const last = state.rates.slice(-5);
      const mean = (name) => last.reduce((sum, rate) => sum + rate[name], 0) / (last.length || 1);
      const [allowed, denied] = [mean("allowed"), mean("denied")];
      const all = allowed + denied;
      const number = (value, text, kind) => h("div", { class: "number" }, h("b", { class: kind ?? "" }, value), h("span", {}, text));
      fill(numbers, number(count(all), "requests a second"),
        number(count(denied), "denied a second", denied > 0 ? "bad" : ""), number(percent(all ? denied / all : 0), "denied"));
      const idle = Array.from({ length: Math.max(0, 30 - state.rates.length) }, () => ({ width: 1, allowed: 0, denied: 0 }));
      const peak = Math.max(0, ...state.rates.map((rate) => rate.allowed + rate.denied));
      fill(graph, h("h2", {}, "Requests a second since this page was opened"),
        chart([...idle, ...state.rates], `${count(all)} requests a second, ${count(denied)} of them denied`),
        legend(`peak ${count(peak)}/s`));
      if (!state.status.top) {
        top = null;
        return fill(list, h("p", { class: "empty" }, "Frequent keys are not kept: the server was started with --top off."));
      }
      top = await get("top", { by: choice.by, window: choice.window, limit: 100 });
      rows();
    },
    fail(error) { fill(list, h("p", { class: "empty bad" }, error.message)); },
  };
}

function row(counter, most) {
  const bar = h("div", { class: "bar" });
  bar.style.width = `${Math.max(1, (counter.share / (most || 1)) * 100)}%`;
  const rule = counter.is_override ? "limit of the request" : counter.rule ?? (counter.shortened ? "too long to be looked up" : "rule of an older configuration");
  const exact = (value, error) => h("span", { title: error ? `at least ${value}, at most ${value + error}` : String(value) }, count(value));
  return h("tr", {},
    h("td", { class: "key" }, h("a", { href: `#/key/${counter.id}` }, descriptor(counter.descriptor) || "(unreadable)"),
      h("small", {}, counter.domain, counter.shortened ? " · only its beginning is known" : ""), bar),
    h("td", { class: "wide key" }, rule),
    h("td", { class: "n bad" }, exact(counter.denied, counter.denied_error)),
    h("td", { class: "n wide" }, exact(counter.hits, counter.hits_error)),
    h("td", { class: "n" }, percent(counter.share)));
}

// This replica: its health, its stores, how its rules came into force, and its numbers.

import { count, duration, fill, h, visible } from "./dom.js";

let needle = "";
let hasZeros = false;

const labels = (metric) => Object.entries(metric.labels).map(([key, value]) => `${key}=${visible(value)}`).join(" ");

export function open(main, state) {
  const about = h("section", { class: "card" });
  const reloads = h("section", { class: "card" });
  const numbers = h("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": "Table" });
  const filter = h("input", {
    id: "filter", type: "search", placeholder: "Filter", "aria-label": "Filter numbers", ".value": needle,
    oninput: (event) => { needle = event.target.value; table(); },
  });
  const zeros = h("label", {}, h("input", {
    id: "zeros", type: "checkbox", ".checked": hasZeros, onchange: (event) => { hasZeros = event.target.checked; table(); },
  }), " zeros, too");
  fill(main, h("h1", { class: "skip" }, "Replica"), h("div", { class: "two" }, about, reloads),
    h("section", { class: "card" }, h("div", { class: "tools" }, h("h2", {}, "Numbers"), zeros, filter), numbers));

  function table() {
    const text = (metric) => `${metric.name} ${Object.entries(metric.labels).map(([key, value]) => `${key}=${value}`).join(" ")}`;
    const metrics = (state.status?.metrics ?? []).filter((metric) => (hasZeros || metric.value !== 0) && text(metric).toLowerCase().includes(needle.toLowerCase()));
    fill(numbers, metrics.length ? h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, "Metric"), h("th", { class: "wide" }, "Labels"), h("th", { class: "n" }, "Value"))),
      h("tbody", {}, metrics.map((metric) => h("tr", {}, h("td", { class: "key" }, metric.name.replace(/^sluicegate_/, ""), h("small", { class: "narrow" }, labels(metric))),
        h("td", { class: "wide" }, labels(metric)), h("td", { class: "n" }, count(metric.value))))))
      : h("p", { class: "empty" }, hasZeros ? "No number fits the filter." : "No number that is not zero fits the filter."));
  }

  return {
    async update() {
      const { status } = state;
      const yes = (is, good, bad) => h("dd", { class: is ? "good" : "bad" }, is ? good : bad);
      fill(about, h("h2", {}, "This replica"), h("dl", {},
        h("dt", {}, "Version"), h("dd", {}, `${status.version}, up ${duration(status.uptime_seconds)}`),
        h("dt", {}, "Health"), h("dd", { class: status.healthy && !status.reasons.length ? "good" : "bad" },
          [status.healthy ? "healthy" : "not healthy", ...status.reasons].map(visible).join("; ")),
        h("dt", {}, "Rules"), h("dd", {}, `${status.rules.rules} in ${status.rules.domains} ${status.rules.domains === 1 ? "domain" : "domains"}, generation ${status.rules.generation}, hash ${status.rules.hash || "none"}`),
        h("dt", {}, "Store"), h("dd", {}, status.store),
        ...status.stores.flatMap((store) => [h("dt", {}, store.name), yes(!store.failing, "answers", "does not answer")]),
        h("dt", {}, "If it is away"), h("dd", {}, `${status.on_store_error}, ${status.replicas} ${status.replicas === 1 ? "replica has" : "replicas share"} the limits`),
        h("dt", {}, "Frequent keys"), h("dd", {}, status.top ? (status.masked ? "kept, values masked" : "kept") : "off"),
        h("dt", {}, "Changes"), h("dd", {}, status.token ? "with the admin token" : "not possible: no --admin-token-file")));
      const items = [...status.reloads].reverse().map((reload) => h("div", { class: "reload" },
        h("span", { class: reload.ok ? "good" : "bad" }, reload.ok ? "in force" : "refused"), ` ${new Date(reload.at_ms).toLocaleString()} · `,
        reload.ok ? `generation ${reload.generation}, ${reload.rules} rules, ${reload.hash}` : "the old rules stayed in force",
        reload.errors ? h("pre", { tabindex: 0 }, reload.errors.split("\n").map(visible).join("\n")) : null));
      fill(reloads, h("h2", {}, "Loads of rules, newest first"), items.length ? items : h("p", { class: "empty" }, "No rules were loaded yet."));
      table();
    },
  };
}

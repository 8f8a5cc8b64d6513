// What Envoys hold that enforce quotas themselves (RLQS).

import { get } from "./api.js";
import { count, descriptor, duration, fill, h, visible } from "./dom.js";

let needle = "";

export function open(main, state) {
  const title = h("h2", {});
  const note = h("div", {});
  const list = h("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": "Table" });
  const filter = h("input", {
    id: "filter", type: "search", placeholder: "Filter", "aria-label": "Filter leases", ".value": needle,
    oninput: (event) => { needle = event.target.value; rows(); },
  });
  fill(main, h("h1", { class: "skip" }, "Leases"), h("section", { class: "card" }, h("div", { class: "tools" }, title, filter), note, list));
  let page = null;

  function rows() {
    if (!page) return;
    const text = (lease) => `${lease.domain} ${lease.rule ?? ""} ${lease.envoy} ${descriptor(lease.descriptor)}`.toLowerCase();
    const leases = page.leases.filter((lease) => text(lease).includes(needle.toLowerCase()));
    if (!leases.length) {
      const empty = page.leases.length ? "No lease fits the filter."
        : page.streams ? "No Envoy holds anything: nobody asks, or every limit is used up."
        : "No Envoy enforces quotas itself: none is connected by RLQS (docs/rlqs.md).";
      return fill(list, h("p", { class: "empty" }, empty));
    }
    fill(list, h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, "Key"), h("th", {}, "Envoy"), h("th", { class: "n" }, "Held"),
      h("th", { class: "n wide" }, "Granted"), h("th", { class: "n wide" }, "Used since"), h("th", { class: "n" }, "Ends in"))),
    h("tbody", {}, leases.map(row))));
  }

  return {
    async update() {
      page = await get("leases", { limit: 200 });
      const streams = `${page.streams} ${page.streams === 1 ? "stream" : "streams"}`;
      title.textContent = `${count(page.held)} requests held by ${count(page.total)} leases, ${streams}`;
      const notes = [];
      if (state.status.conditions.quotas_without_store) {
        notes.push(h("p", { class: "bad" }, `The store does not answer: quotas are given by failure mode ${state.status.on_store_error}.`));
      }
      if (page.streams_without_answer) notes.push(h("p", { class: "warn" }, `${page.streams_without_answer} streams wait for the store, and are left out.`));
      if (page.total > page.leases.length) notes.push(h("p", { class: "soft" }, `The largest ${page.leases.length} are shown.`));
      fill(note, notes);
      rows();
    },
    fail(error) { fill(list, h("p", { class: "empty bad" }, error.message)); },
  };
}

function row(lease) {
  const ends = lease.expires_in_ms ? duration(lease.expires_in_ms / 1000) : "over, not reported";
  return h("tr", {},
    h("td", { class: "key" }, descriptor(lease.descriptor) || "(unreadable)", h("small", {}, `${visible(lease.domain)} · ${lease.rule ? visible(lease.rule) : "rule of an older configuration"}`)),
    h("td", { class: "key" }, visible(lease.envoy) || "no name", h("small", {}, `stream ${lease.stream}`), lease.late ? h("span", { class: "tag" }, "late") : null),
    h("td", { class: "n" }, count(lease.held)), h("td", { class: "n wide" }, count(lease.granted)),
    h("td", { class: "n wide" }, count(lease.used)), h("td", { class: lease.late ? "n bad" : "n" }, ends));
}

// The rules in force as a tree, a page at a time, with what they decide.

import { get } from "./api.js";
import { count, each, fill, h, source, visible } from "./dom.js";

const PAGE = 200;
const choice = { filter: "", order: "written", offset: 0 };

export function open(main, state) {
  const title = h("h2", {});
  const list = h("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": "Table" });
  const pager = h("div", { class: "tools" });
  const filter = h("input", {
    id: "filter", type: "search", placeholder: "Path, name or domain", "aria-label": "Filter rules", ".value": choice.filter,
    oninput: (event) => { choice.filter = event.target.value; choice.offset = 0; state.refresh(); },
  });
  const order = h("select", {
    id: "order", "aria-label": "Order", onchange: (event) => { choice.order = event.target.value; choice.offset = 0; state.refresh(); },
  }, [["written", "as written"], ["denied", "most denied"]].map(([value, text]) => h("option", { value, ".selected": choice.order === value }, text)));
  fill(main, h("h1", { class: "skip" }, "Rules"), h("section", { class: "card" }, h("div", { class: "tools" }, title, filter, order), list, pager));
  const turn = (by) => { choice.offset = Math.max(0, choice.offset + by); main.scrollIntoView(); state.refresh(); };
  return {
    async update() {
      const page = await get("rules", { filter: choice.filter, order: choice.order, offset: choice.offset, limit: PAGE });
      title.textContent = `${page.total} ${page.total === 1 ? "rule" : "rules"}, generation ${page.generation}`;
      if (!page.rules.length) {
        fill(pager);
        const empty = choice.filter ? "No rule fits the filter." : "The configuration is empty: nothing is limited. Give --rules a file; `sluicegate check` validates it.";
        return fill(list, h("p", { class: "empty" }, empty));
      }
      let domain = null;
      const lines = page.rules.flatMap((rule) => {
        // In another order than the files' domains are mixed, and stand in each line.
        if (choice.order !== "written") return [line(rule, rule.domain)];
        const head = rule.domain === domain ? [] : [h("tr", {}, h("th", { colspan: 6, scope: "colgroup" }, `domain ${visible(rule.domain)}`))];
        domain = rule.domain;
        return [...head, line(rule)];
      });
      fill(list, h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, "Rule"), h("th", {}, "Limit"),
        h("th", { class: "n" }, "Denied/s"), h("th", { class: "n wide" }, "Allowed/s"), h("th", { class: "n wide" }, "Denied in all"), h("th", { class: "wide" }, "Written in"))),
      h("tbody", {}, lines)));
      const last = Math.min(page.total, page.offset + page.rules.length);
      fill(pager, page.total > PAGE ? [
        h("button", { id: "back", type: "button", disabled: page.offset === 0, onclick: () => turn(-PAGE) }, "← Back"),
        h("span", {}, `${page.offset + 1} to ${last} of ${page.total}`),
        h("button", { id: "next", type: "button", disabled: last >= page.total, onclick: () => turn(PAGE) }, "Next →")] : []);
    },
    fail(error) { fill(list, h("p", { class: "empty bad" }, error.message)); },
  };
}

function line(rule, domain = null) {
  const tags = [[rule.shadow_mode, "shadow"], [rule.quota_mode, "quota"], [rule.on_store_error, `store away: ${rule.on_store_error}`]];
  const denied = rule.per_second.denied;
  return h("tr", {},
    h("td", { class: "key" }, visible(rule.path), " ", tags.filter(([is]) => is).map(([, text]) => h("span", { class: "tag" }, text)),
      domain ? h("small", {}, `domain ${visible(domain)}`) : null, rule.name ? h("small", {}, visible(rule.name)) : null, rule.candidate ? candidate(rule.candidate) : null),
    h("td", {}, rule.unlimited ? "unlimited" : `${count(rule.limit)} ${each(rule.window)}`, h("span", { class: "wide" }, rule.algorithm ? h("small", { class: "src" }, ` ${rule.algorithm}`) : "")),
    h("td", { class: denied > 0 ? "n bad" : "n" }, count(denied)),
    h("td", { class: "n wide" }, count(rule.per_second.allowed)),
    h("td", { class: "n wide" }, count(rule.decisions.denied), rule.decisions.shadow_denied
      ? h("small", { title: "Shadow mode let them pass" }, `${count(rule.decisions.shadow_denied)} would be`) : null),
    h("td", { class: "wide" }, source(rule)));
}

// What the candidate would change.
function candidate({ limit, window, algorithm, decisions, would_deny_share }) {
  const percent = (100 * would_deny_share).toLocaleString("en", { maximumSignificantDigits: 2 });
  return h("small", { class: "candidate" }, `candidate ${count(limit)} ${each(window)} ${algorithm}: would deny ${percent} % more (${count(decisions.would_deny)}), let ${count(decisions.would_allow)} more pass`);
}

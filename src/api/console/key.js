// One key: how its counter stands, its last hour, and why the rule counts it.

import { Refused, get, post } from "./api.js";
import { chart, count, descriptor, duration, each, fill, h, legend, visible } from "./dom.js";
import { card } from "./reset.js";

const WHY = {
  other_value: "is another value", pattern_does_not_fit: "does not fit", less_specific: "fits, but is less specific", other_key: "is another key",
};
const FROM = { memory: "this process' memory", redis: "Redis", fallback: "fallback counters: Redis does not answer", none: "nowhere: Redis does not answer" };

export function open(main, state, id) {
  // A box of its own: an answer that comes when another page is shown goes nowhere.
  const box = h("div", {}, h("p", { class: "empty" }, "Loading …"));
  fill(main, box);
  return {
    async update() {
      let history;
      try {
        history = await get("history", { id });
      } catch (error) {
        if (!(error instanceof Refused) || error.status !== 404) throw error;
        return fill(box, h("p", { class: "empty" }, "This key is no longer among the frequent ones. ", h("a", { href: "#/" }, "Back to now")));
      }
      const { counter, slices } = history;
      const askable = !counter.masked && !counter.shortened && !counter.is_override && !counter.descriptor.some((entry) => entry.shared);
      const explained = askable ? await post("explain", {
        domain: counter.domain, descriptors: [{ entries: counter.descriptor.map(({ key, value }) => ({ key, value })) }],
      }) : null;
      fill(box, h("p", {}, h("a", { href: "#/" }, "← Now")),
        h("h1", {}, descriptor(counter.descriptor), " ", h("span", { class: "tag" }, counter.domain)),
        h("div", { class: "two" }, standing(counter, explained), past(slices)),
        h("div", { class: "two" }, explained ? why(explained.descriptors[0]) : null, explained?.descriptors[0].counter && !counter.is_candidate ? card(state, id, counter) : null));
    },
    fail(error) { fill(box, h("p", { class: "empty bad" }, error.message)); },
  };
}

function standing(counter, explained) {
  const card = h("section", { class: "card" }, h("h2", {}, "Now"));
  const state = explained?.descriptors[0].counter;
  if (!state) {
    const reason = counter.masked ? "Values are masked (--mask-values), so the counter cannot be asked for by what is shown here."
      : counter.is_override ? "Requests bring this limit themselves; what it is stands in them."
      : counter.shortened ? "The descriptor is too long to be kept whole; ask with `sluicegate counters`."
      : counter.descriptor.some((entry) => entry.shared) ? "All values that fit a pattern share this counter; ask with a value: `sluicegate explain`."
      : "No rule counts this key now.";
    card.append(h("p", { class: "empty" }, reason));
    return card;
  }
  const fullness = h("div", {});
  fullness.style.width = `${Math.min(100, (state.used / Math.max(1, state.quota)) * 100)}%`;
  const verdict = state.would_pass ? h("b", { class: "good" }, "passes")
    : h("b", { class: "bad" }, state.retry_in_ms === null ? "denied; waiting does not help" : `denied for another ${duration(state.retry_in_ms / 1000)}`);
  card.append(h("p", { class: "number" }, h("b", {}, `${count(state.used)} of ${count(state.quota)}`), h("span", {}, `used; the limit is ${count(state.limit)} ${each(state.window)}`)),
    h("div", { class: state.remaining ? "meter" : "meter full", role: "img", "aria-label": `${state.used} of ${state.quota} used` }, fullness),
    h("dl", {}, h("dt", {}, "Next request"), h("dd", {}, verdict, state.enforced ? "" : " (shadow: never denied)"),
      ...(state.held ? [h("dt", {}, "Held"), h("dd", {}, count(state.held))] : []),
      h("dt", {}, "Remaining"), h("dd", {}, count(state.remaining)),
      h("dt", {}, "Full again in"), h("dd", {}, duration(state.resets_in_ms / 1000)),
      h("dt", {}, "Algorithm"), h("dd", {}, state.algorithm),
      h("dt", {}, "Read from"), h("dd", { class: ["fallback", "none"].includes(state.read_from) ? "bad" : "" }, FROM[state.read_from], state.cached ? " (a cached denial)" : "")));
  for (const { rule, counter: other } of explained.descriptors[0].others ?? []) {
    if (other) card.append(h("p", {}, `also ${visible(rule.path)}: ${count(other.used)} of ${count(other.quota)} used; the limit is ${count(other.limit)} ${each(other.window)}, `,
      other.would_pass ? h("b", { class: "good" }, "passes") : h("b", { class: "bad" }, "denied")));
  }
  return card;
}

function past(slices) {
  const points = slices.filter((slice) => slice.seconds > 0)
    .map((slice) => ({ width: slice.seconds, allowed: (slice.hits - slice.denied) / slice.seconds, denied: slice.denied / slice.seconds }));
  const sum = (name) => slices.reduce((total, slice) => total + slice[name], 0);
  const spans = slices.length ? duration(slices[0].began_seconds_ago) : "0 s";
  return h("section", { class: "card" }, h("h2", {}, `Last ${spans}`), chart(points, `${sum("hits")} decisions, ${sum("denied")} denied`),
    legend(`${count(sum("hits"))} decisions, ${count(sum("denied"))} denied`));
}

function why(explained) {
  const rule = explained.rule;
  const how = (step) => ({ value: "matches by its value", list: `is in the list ${visible(step.pattern ?? "")}`, network: `is in a network of ${visible(step.pattern ?? "")}`,
    pattern: `matches the pattern ${visible(step.pattern ?? "")}`, regex: `matches the expression ${visible(step.pattern ?? "")}`, key: "matches by its key alone" })[step.matched] ?? "matches nothing here";
  const others = (step) => step.others.length ? h("ul", {}, step.others.map((other) => h("li", {},
    `not ${other.text === "" ? `${visible(step.key)} (any value)` : visible(other.text)}: ${WHY[other.why]}`)), step.more_others ? h("li", {}, `and ${step.more_others} more`) : null) : null;
  return h("section", { class: "card" }, h("h2", {}, "Why this rule"),
    rule ? h("p", {}, h("b", {}, visible(rule.path)), " ", h("span", { class: "src" }, visible(rule.source)),
      rule.shadow_mode ? h("span", { class: "tag" }, "shadow") : null, rule.quota_mode ? h("span", { class: "tag" }, "quota") : null) : null,
    h("ul", { class: "steps" }, explained.steps.map((step) => h("li", {}, `${visible(step.key)}=${visible(step.value)} ${how(step)}`, others(step) ?? ""))));
}

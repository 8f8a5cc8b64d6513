// One key: how its counter stands, its last hour, and why the rule counts it.

import { Refused, get, post } from "./api.js";
import { count, descriptor, duration, each, fill, h, legend, plot, source, visible } from "./dom.js";
import { asked } from "./lookup.js";
import { card } from "./reset.js";

const WHY = {
  other_value: "is another value", pattern_does_not_fit: "does not fit", too_long_for_regex: "is not tried on values so long", less_specific: "fits, but is less specific", other_key: "is another key",
};
const FROM = { memory: "this process' memory", redis: "Redis", fallback: "fallback counters: Redis does not answer", none: "nowhere: Redis does not answer" };

export function open(main, state, id) {
  // A box of its own: an answer that comes when another page is shown goes nowhere.
  const box = h("div", { class: "stack" }, h("p", { class: "empty" }, "Loading …"));
  fill(main, box);
  const named = asked(id);
  return {
    async update() {
      const known = named ? await byName(named) : await byId(id);
      if (!known) {
        return fill(box, h("p", { class: "empty" }, "This key is no longer among the frequent ones. ", h("a", { href: "#/" }, "Back to now"), ", where any key is found by its name."));
      }
      const { counter, slices, explained } = known;
      const first = explained?.descriptors[0];
      fill(box, back(),
        h("h1", {}, descriptor(counter.descriptor), " ", h("span", { class: "tag" }, visible(counter.domain))),
        h("div", { class: "two" }, standing(counter, explained), past(slices)),
        h("div", { class: "two" }, first ? why(first) : null, first?.counter && !counter.is_candidate ? card(state, id, counter) : null));
    },
    fail(error) { fill(box, back(), h("p", { class: "empty bad" }, error.message)); },
  };
}

const back = () => h("p", { class: "back" }, h("a", { href: "#/" }, "← Now"));

const explain = ({ domain, descriptor: entries }) => post("explain", {
  domain, descriptors: [{ entries: entries.map(({ key, value }) => ({ key, value })) }],
});

/** What was counted of it, or nothing where it is not among the frequent ones. */
async function pastOf(id) {
  try {
    return await get("history", { id });
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 404) throw error;
    return null;
  }
}

/** A key of a list. */
async function byId(id) {
  const history = await pastOf(id);
  if (!history) return null;
  const { counter } = history;
  const askable = !counter.masked && !counter.shortened && !counter.is_override && !counter.descriptor.some((entry) => entry.shared);
  return { ...history, explained: askable ? await explain(counter) : null };
}

/** A key that was typed. */
async function byName({ domain, entries }) {
  const counter = { domain, descriptor: entries };
  const explained = await explain(counter);
  const id = explained.descriptors[0]?.counter?.id;
  const history = id ? await pastOf(id) : null;
  return { counter, slices: history?.slices ?? null, explained };
}

function standing(counter, explained) {
  const card = h("section", { class: "card" }, h("h2", {}, "Now"));
  const state = explained?.descriptors[0].counter;
  if (!state) {
    const reason = counter.masked ? "Values are masked (--mask-values), so the counter cannot be asked for by what is shown here."
      : counter.is_override ? "Requests bring this limit themselves; what it is stands in them."
      : counter.shortened ? "The descriptor is too long to be kept whole; ask with `sluicegate counters`."
      : counter.descriptor.some((entry) => entry.shared) ? "All values that fit a pattern share this counter; ask with a value: `sluicegate explain`."
      : explained && !explained.domain_known ? "No rules have this domain: everything passes."
      : explained?.descriptors[0].outcome === "unlimited" ? "The rule sets no limit: everything passes."
      : explained?.descriptors[0].outcome === "replaced" ? "Another rule of the request stands in for its rule."
      : "No rule counts this key now: it passes.";
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
      h("dt", {}, "Full again in"), h("dd", {}, state.resets_in_ms ? duration(state.resets_in_ms / 1000) : "it is unused"),
      h("dt", {}, "Algorithm"), h("dd", {}, state.algorithm),
      h("dt", {}, "Read from"), h("dd", { class: ["fallback", "none"].includes(state.read_from) ? "bad" : "" }, FROM[state.read_from], state.cached ? " (a cached denial)" : "")));
  for (const { rule, counter: other } of explained.descriptors[0].others ?? []) {
    if (other) card.append(h("p", {}, `also ${visible(rule.path)}: ${count(other.used)} of ${count(other.quota)} used; the limit is ${count(other.limit)} ${each(other.window)}, `,
      other.would_pass ? h("b", { class: "good" }, "passes") : h("b", { class: "bad" }, "denied")));
  }
  return card;
}

function past(slices) {
  if (!slices) {
    return h("section", { class: "card" }, h("h2", {}, "Last hour"), h("p", { class: "empty" }, "Not among the frequent keys of the last hour: what it asked is not kept."));
  }
  const points = slices.filter((slice) => slice.seconds > 0)
    .map((slice) => ({ width: slice.seconds, allowed: (slice.hits - slice.denied) / slice.seconds, denied: slice.denied / slice.seconds }));
  const sum = (name) => slices.reduce((total, slice) => total + slice[name], 0);
  const seconds = slices[0]?.began_seconds_ago ?? 0;
  return h("section", { class: "card" }, h("h2", {}, `Last ${duration(seconds)}`), plot(points, seconds, `${sum("hits")} decisions, ${sum("denied")} denied`),
    legend(`${count(sum("hits"))} decisions, ${count(sum("denied"))} denied`));
}

function why(explained) {
  const rule = explained.rule;
  const how = (step) => ({ value: "matches by its value", list: `is in the list ${visible(step.pattern ?? "")}`, network: `is in a network of ${visible(step.pattern ?? "")}`,
    pattern: `matches the pattern ${visible(step.pattern ?? "")}`, regex: `matches the expression ${visible(step.pattern ?? "")}`, key: "matches by its key alone" })[step.matched] ?? "matches nothing here";
  const others = (step) => step.others.length ? h("ul", {}, step.others.map((other) => h("li", {},
    `not ${other.text === "" ? `${visible(step.key)} (any value)` : visible(other.text)}: ${WHY[other.why]}`)), step.more_others ? h("li", {}, `and ${step.more_others} more`) : null) : null;
  return h("section", { class: "card" }, h("h2", {}, "Why this rule"),
    rule ? h("p", {}, h("b", {}, visible(rule.path)), " ", source(rule),
      rule.shadow_mode ? h("span", { class: "tag" }, "shadow") : null, rule.quota_mode ? h("span", { class: "tag" }, "quota") : null) : null,
    h("ul", { class: "steps" }, explained.steps.map((step) => h("li", {}, `${visible(step.key)}=${visible(step.value)} ${how(step)}`, others(step) ?? ""))));
}

// Any key by its name: also one that is not among the frequent ones.

import { get } from "./api.js";
import { h } from "./dom.js";

const typed = { domain: "", key: "" };

/** The address of a key's page. */
export function address(domain, entries) {
  const query = new URLSearchParams([["domain", domain], ...entries.flatMap(({ key, value }) => [["key", key], ["value", value]])]);
  return `#/key/of?${query}`;
}

/** What an address names, or nothing. */
export function asked(text) {
  if (!text.startsWith("of?")) return null;
  const query = new URLSearchParams(text.slice(3));
  const values = query.getAll("value");
  return { domain: query.get("domain") ?? "", entries: query.getAll("key").map((key, at) => ({ key, value: values[at] ?? "" })) };
}

/** Entries as they are shown here (two spaces between them), or as the API takes them (`|`). */
function parse(text) {
  const plain = (part) => part.replace(/%(25|7c|3d)/gi, decodeURIComponent);
  return text.trim().split(/\||\s{2,}/).filter(Boolean).map((part) => {
    const [key, ...value] = part.split("=");
    return { key: plain(key), value: plain(value.join("=")) };
  });
}

/** Suggests what was sought in vain elsewhere. */
export function suggest(text) {
  const key = document.getElementById("look-key");
  if (key && !typed.key && document.activeElement !== key) key.value = text;
}

/** The form. It knows the domains of the first rules. */
export function lookup() {
  const domains = h("datalist", { id: "domains" });
  const domain = h("input", { id: "look-domain", list: "domains", placeholder: "Domain", "aria-label": "Domain", autocomplete: "off", spellcheck: "false", required: true, ".value": typed.domain,
    oninput: (event) => { typed.domain = event.target.value; } });
  const key = h("input", { id: "look-key", placeholder: "user=alice|path=/x", "aria-label": "Key: its entries, key=value|key=value", autocomplete: "off", spellcheck: "false", required: true, ".value": typed.key,
    oninput: (event) => { typed.key = event.target.value; } });
  const form = h("form", { class: "tools look", onsubmit: (event) => {
    event.preventDefault();
    location.hash = address(domain.value.trim(), parse(key.value));
  } }, h("span", { class: "soft" }, "Any key"), domain, domains, key, h("button", { id: "look" }, "Look up"));
  get("rules", { limit: 200 }).then(({ rules }) => {
    const names = [...new Set(rules.map((rule) => rule.domain))];
    domains.replaceChildren(...names.map((value) => h("option", { value })));
    if (!domain.value && names.length) domain.value = typed.domain = names[0];
  }, () => {});
  return form;
}

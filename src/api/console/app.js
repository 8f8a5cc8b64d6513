// The console: which page is shown, how fresh it is, and what every page shows (health, banners, the token's dialog).

import { Refused, events, get, setToken } from "./api.js";
import { duration, fill, h, visible } from "./dom.js";
import * as key from "./key.js";
import * as leases from "./leases.js";
import * as now from "./now.js";
import * as replica from "./replica.js";
import * as rules from "./rules.js";

const REFRESH_MS = 2000;
const PAGES = { now, rules, replica, leases, key };

/** What pages share: the newest status, rates since the tab was opened, what the event stream said. */
const state = { status: null, rates: [], lost: false, refresh: () => refresh(), change };
let shown = null;
let timer = 0;
let running = false;
let again = false;
let retry = null;

function place() {
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  return { name: name in PAGES ? name : "now", rest: rest.join("/") };
}

async function route() {
  const { name, rest } = place();
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  shown = PAGES[name].open(document.getElementById("main"), state, rest);
  document.title = name === "now" ? "sluicegate" : `${name} · sluicegate`;
  await refresh();
}

async function refresh() {
  if (running) {
    again = true;
    return;
  }
  running = true;
  clearTimeout(timer);
  try {
    const status = await get("status");
    note(status);
    state.lost = false;
    closeToken();
    frame();
    await shown?.update();
  } catch (error) {
    if (error instanceof Refused && (error.status === 401 || error.status === 403)) askToken(error, true);
    else if (error instanceof Refused) shown?.fail?.(error);
    else {
      state.lost = true;
      frame();
    }
  } finally {
    running = false;
    timer = setTimeout(refresh, again ? 0 : REFRESH_MS);
    again = false;
  }
}

/** Rates come from two looks at the same process; a restart begins anew. */
function note(status) {
  const at = performance.now() / 1000;
  const sum = (code) => status.metrics
    .filter((metric) => metric.name === "sluicegate_requests_total" && metric.labels.code === code)
    .reduce((total, metric) => total + metric.value, 0);
  const counts = { at, allowed: sum("ok"), denied: sum("over_limit"), errors: sum("error") };
  const before = state.counts;
  const isRestart = before && (counts.allowed < before.allowed || status.uptime_seconds < state.status.uptime_seconds);
  if (before && !isRestart && at - before.at > 0.5) {
    const seconds = at - before.at;
    state.rates.push({
      width: seconds,
      allowed: (counts.allowed - before.allowed) / seconds,
      denied: (counts.denied - before.denied) / seconds,
    });
    if (state.rates.length > 150) state.rates.shift();
  }
  if (!before || isRestart || at - before.at > 0.5) state.counts = counts;
  state.status = status;
}

function frame() {
  const pill = document.getElementById("health");
  const { status, lost } = state;
  const banners = [];
  if (lost) {
    pill.className = "pill bad";
    pill.textContent = "no connection";
    banners.push(h("p", { class: "bad" }, "The server does not answer. What is shown is old; trying again every two seconds."));
  } else if (status) {
    const away = status.stores.filter((store) => store.failing);
    pill.className = `pill ${status.healthy && !away.length ? "good" : "bad"}`;
    pill.textContent = away.length ? "store away" : status.healthy ? "healthy" : "not healthy";
    if (away.length) {
      const meaning = { local: "each replica counts its own part of the limits", allow: "everything passes", deny: "everything is denied" };
      banners.push(h("p", { class: "bad" },
        `${away.map((store) => store.name).join(", ")} does not answer. Failure mode ${status.on_store_error}: ${meaning[status.on_store_error]}.`));
    }
    if (!status.rules.loaded) banners.push(h("p", { class: "bad" }, "No rules are in force: every request is answered with an error."));
    if (status.conditions.draining) banners.push(h("p", { class: "warn" }, "This process is told to end; it finishes what is under way."));
    if (!status.healthy && !banners.length) banners.push(h("p", { class: "bad" }, `Not healthy: ${status.reasons.map(visible).join("; ")}.`));
    const stale = status.conditions.stale_plan_sources;
    if (stale.length) banners.push(h("p", { class: "warn" }, `Plans are stale, what was read last stays in force: ${stale.map(visible).join(", ")}.`));
    if (status.shadow_mode) banners.push(h("p", { class: "warn" }, "Shadow mode: decisions are counted, nothing is denied."));
    const last = status.reloads.at(-1);
    if (last && !last.ok) {
      const ago = duration(Math.max(0, (Date.now() - last.at_ms) / 1000));
      banners.push(h("p", { class: "warn" }, `New rules were refused ${ago} ago, the old ones stay in force: `,
        visible(last.errors.split("\n").find((line) => line.trim()) ?? ""), " ", h("a", { href: "#/replica" }, "All errors")));
    }
  }
  const box = document.getElementById("banners");
  const text = banners.map((banner) => banner.textContent).join();
  // Read out again only when it changed.
  if (box.dataset.text !== text) {
    box.dataset.text = text;
    fill(box, banners);
  }
}

/** Whether the dialog was opened for a read, which a later read that succeeds closes, or for a change. */
let isForLook = false;

function askToken(error, isLook = false) {
  const dialog = document.getElementById("token");
  if (!dialog.open) isForLook = isLook;
  const known = error.status === 401;
  // That one is needed is said above the field.
  document.getElementById("token-error").textContent = known && !error.hadToken ? "" : error.message;
  dialog.querySelector("button.primary").hidden = !known;
  document.getElementById("token-text").disabled = !known;
  if (!dialog.open) dialog.showModal();
}

function closeToken() {
  const dialog = document.getElementById("token");
  if (dialog.open && isForLook) dialog.close();
}

/** Changes something; asks for the token if need be, and then tries once more. */
async function change(action, fail) {
  try {
    await action();
  } catch (error) {
    if (error instanceof Refused && error.status === 401) {
      retry = () => change(action, fail);
      askToken(error);
    } else fail(error);
  }
}

document.getElementById("token").addEventListener("close", () => {
  const input = document.getElementById("token-text");
  const [token, next] = [input.value.trim(), retry];
  input.value = "";
  retry = null;
  const isGiven = token && document.getElementById("token").returnValue !== "cancel";
  if (isGiven) setToken(token);
  refresh();
  if (isGiven) next?.();
});

/** Reloads and changes of the failure mode are shown at once, not at the next look. */
async function listen() {
  for (;;) {
    let pause = 3000;
    try {
      await events((name) => {
        if (name === "reload" || name === "circuit") refresh();
        // Newer consoles listen in place of this one, which looks every two seconds as it is.
        if (name === "displaced") pause = 60_000;
      });
    } catch {
      // The next look says what is wrong.
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

function theme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("sluicegate-theme", root.dataset.theme);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const page = { 1: "#/", 2: "#/rules", 3: "#/replica", 4: "#/leases" }[event.key];
  if (page) location.hash = page;
  else if (event.key === "t") theme();
  else if (event.key === "/") {
    const filter = document.getElementById("filter");
    if (filter) {
      event.preventDefault();
      filter.focus();
    }
  }
});

document.getElementById("theme").addEventListener("click", theme);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("main").focus();
});
document.documentElement.dataset.theme = localStorage.getItem("sluicegate-theme") ?? "";
addEventListener("hashchange", route);
document.addEventListener("visibilitychange", () => document.hidden || refresh());
route();
listen();

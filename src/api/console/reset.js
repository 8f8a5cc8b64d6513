// Lets a key through again: shows what would be reset, asks, and resets it.

import { post } from "./api.js";
import { count, descriptor, fill, h } from "./dom.js";

/** What the last reset came to, and of which key. */
const last = { id: null, kind: "", text: "" };

/** The card of a key whose counter can be asked for. */
export function card(state, id, counter) {
  const box = h("section", { class: "card" }, h("h2", {}, "Let it through again"));
  if (!state.status.token) {
    box.append(h("p", { class: "empty" }, "Resets need the admin token, and none is configured: start the server with --admin-token-file."));
    return box;
  }
  box.append(h("p", { class: "soft" }, "Makes this key's counter as new. All replicas forget what they know of it within a second, and the log says who did it."),
    h("p", {}, h("button", { id: "reset", type: "button", onclick: () => start(state, id, counter) }, "Reset …")),
    h("p", { id: "reset-said", role: "status", class: last.id === id ? last.kind : "" }, last.id === id ? last.text : ""));
  return box;
}

function say(id, kind, text) {
  Object.assign(last, { id, kind, text });
  const place = document.getElementById("reset-said");
  if (place) {
    place.className = kind;
    place.textContent = text;
  }
}

async function start(state, id, counter) {
  say(id, "", "");
  const entries = counter.descriptor.map(({ key, value }) => ({ key, value }));
  await state.change(async () => {
    const selection = await post("counters/reset", { domain: counter.domain, entries });
    if (!await confirmed(counter, selection)) return;
    const done = await post("counters/reset", { token: selection.token });
    say(id, done.replicas_told ? "good" : "warn", `Reset: ${count(done.hits)} hits were in use. ${done.replicas_told
      ? "All replicas let it through within a second."
      : "Other replicas could not be told and may deny it for longer: reset it again."}`);
    state.refresh();
  }, (error) => say(id, "bad", error.message));
}

/** Whether the operator says yes. */
function confirmed(counter, selection) {
  const dialog = document.getElementById("confirm");
  fill(document.getElementById("confirm-what"), h("b", {}, descriptor(counter.descriptor)),
    ` in domain ${counter.domain} ${selection.used === undefined || selection.used === null ? "has several limits. What is in use of all of them" : `has ${count(selection.used)} hits in use. They`} will be forgotten.`);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

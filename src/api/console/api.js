// The operator's API. The token lives as long as the tab.

const TOKEN = "sluicegate-admin-token";
const PATIENCE_MS = 8000;

export class Refused extends Error {
  constructor(status, detail, hadToken = false) {
    super(detail);
    this.status = status;
    this.hadToken = hadToken;
  }
}

export function setToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

function headers(more = {}) {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { ...more, authorization: `Bearer ${token}` } : more;
}

async function ask(path, options = {}) {
  const token = sessionStorage.getItem(TOKEN);
  const answer = await fetch(`/api/v1/${path}`, {
    ...options,
    headers: headers(options.headers),
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  if (answer.ok) return answer.json();
  if (answer.status === 401 && token) {
    // The token is wrong or was replaced: reads are tried once more without it.
    if (sessionStorage.getItem(TOKEN) === token) sessionStorage.removeItem(TOKEN);
    if (!options.method) {
      try {
        return await ask(path, options);
      } catch (error) {
        if (error.status !== 401) throw error;
      }
    }
  }
  const problem = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, problem.detail ?? answer.statusText, token !== null);
}

export function get(path, query = {}) {
  const text = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== "" && value !== undefined)).toString();
  return ask(text ? `${path}?${text}` : path);
}

export function post(path, body) {
  return ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
}

/** Calls `hear(name)` for each event until the stream ends. Not EventSource: that cannot send a token. */
export async function events(hear) {
  const answer = await fetch("/api/v1/events", { headers: headers() });
  if (!answer.ok) throw new Refused(answer.status, answer.statusText);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    let end;
    while ((end = text.indexOf("\n\n")) >= 0) {
      const lines = text.slice(0, end).split("\n");
      text = text.slice(end + 2);
      const field = (name) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      if (field("data")) hear(field("event") ?? "message");
    }
  }
}

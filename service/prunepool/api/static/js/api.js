// Requests to the server. Every failure becomes a Problem with a readable title and detail.

/** An error: the server's problem document (RFC 9457), or the reason why there is none. */
export class Problem extends Error {
  constructor({ status = 0, code = "unreachable", title, detail, retryAfter = null }) {
    super(detail);
    Object.assign(this, { name: "Problem", status, code, title, detail, retryAfter });
  }
}

const KEY = "prunepool-key";
let key = "";
try {
  key = sessionStorage.getItem(KEY) ?? "";
} catch {
  // storage may be forbidden; the key then lasts as long as the page
}

/** Send this API key from now on, until the tab is closed. */
export function useKey(given) {
  key = given;
  try {
    sessionStorage.setItem(KEY, given);
  } catch {
    // as above
  }
}

const unreachable = () =>
  new Problem({ title: "The server does not answer", detail: "It may be restarting, or the connection is lost." });

async function problemOf(response) {
  const retryAfter = Number(response.headers.get("Retry-After")) || null;
  try {
    return new Problem({ ...(await response.json()), retryAfter });
  } catch {
    const detail = `It answered ${response.status} ${response.statusText}`.trim();
    return new Problem({ status: response.status, code: "unexpected", title: "Unexpected answer", detail, retryAfter });
  }
}

async function ask(path, { headers = {}, ...options } = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: key ? { ...headers, "X-API-Key": key } : headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

/** The served models and the default one. */
export const models = async () => (await ask("models")).json();

/** One model in full. */
export const model = async (name) => (await ask(`models/${encodeURIComponent(name)}`)).json();

/** Every series, in Prometheus' text format. */
export const metrics = async () => (await ask("metrics", { headers: { Accept: "text/plain" } })).text();

let compared = 0;

/** How many images were asked for only to compare with. */
export const asides = () => compared;

/** Classify one photo at ratio 0, to compare with; the figures of the server leave it out. */
export async function classifyDense(photo, options) {
  const answer = await classify(photo, { ...options, reduction_ratio: 0 });
  compared += 1;
  return answer;
}

/** Classify one photo. `options` are those of POST /classify. */
export async function classify(photo, options) {
  const type = photo.type.startsWith("image/") ? photo.type : "application/octet-stream";
  const query = new URLSearchParams(options);
  const response = await ask(`classify?${query}`, { method: "POST", body: photo, headers: { "Content-Type": type } });
  return response.json();
}

/** Classify the same photo several times in one request; a list of answers and problem documents. */
export async function classifyMany(photo, copies, options, signal) {
  const form = new FormData();
  for (let i = 0; i < copies; i += 1) form.append("file", photo, "photo");
  for (const [name, value] of Object.entries(options)) form.append(name, value);
  const answer = await (await ask("classify", { method: "POST", body: form, signal })).json();
  return answer.results ?? [answer];
}

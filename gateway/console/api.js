// Asks the gateway, and listens to it. The token is in this tab's session storage and in a header, never in an address.
const HERE = "token";
export const token = () => sessionStorage.getItem(HERE);
export const keepToken = (text) => sessionStorage.setItem(HERE, text);
export const forgetToken = () => sessionStorage.removeItem(HERE);

export class Fault extends Error {
  constructor(code, text) { super(text); this.code = code; }
}

export async function ask(path, body, bearer = token()) {
  let response;
  try {
    response = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers: { Authorization: `Bearer ${bearer}`, ...(body === undefined ? {} : { "Content-Type": "application/json" }) },
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store", credentials: "omit",
    });
  } catch { throw new Fault(0, ""); }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Fault(response.status, answer.detail ?? answer.text_en ?? response.statusText);
  return answer;
}

// A new id for a request: time first, so that ids sort, then chance.
export function newId() {
  const raw = crypto.getRandomValues(new Uint8Array(16));
  let now = Date.now();
  for (let at = 5; at >= 0; at--) { raw[at] = now % 256; now = Math.floor(now / 256); }
  raw[6] = (raw[6] & 15) | 0x70; raw[8] = (raw[8] & 63) | 0x80;
  return [...raw].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

const SILENT_MS_MAX = 40000; // two heartbeats and more
const WAITS_MS = [500, 1000, 2000, 5000, 10000];

// Server-sent events over fetch, because EventSource can send no header. Returns a function that ends it.
export function listen(query, { onEvent, onState, onGone }) {
  const stop = new AbortController();
  let lastId = "";
  (async () => {
    for (let tries = 0; !stop.signal.aborted; tries++) {
      const line = new AbortController();
      const end = () => line.abort();
      stop.signal.addEventListener("abort", end);
      let silence = setTimeout(end, SILENT_MS_MAX);
      try {
        const headers = { Authorization: `Bearer ${token()}`, ...(lastId ? { "Last-Event-ID": lastId } : {}) };
        const response = await fetch(`/console/api/stream?${query}`, { headers, signal: line.signal, cache: "no-store", credentials: "omit" });
        if (response.status === 401 || response.status === 403) return onGone();
        if (response.ok) {
          onState(true);
          tries = 0;
          const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
          for (let rest = ""; ;) {
            const { value, done } = await reader.read();
            if (done) break;
            clearTimeout(silence);
            silence = setTimeout(end, SILENT_MS_MAX);
            const parts = (rest + value).split("\n\n");
            rest = parts.pop();
            for (const part of parts) {
              const fields = Object.fromEntries(part.split("\n").map((text) => [text.slice(0, text.indexOf(":")), text.slice(text.indexOf(":") + 2)]));
              if (fields.id) lastId = fields.id;
              if (fields.event && !stop.signal.aborted) onEvent(fields.event, JSON.parse(fields.data));
            }
          }
        }
      } catch (fault) {
        if (!(fault instanceof TypeError || fault.name === "AbortError")) throw fault;
      } finally {
        clearTimeout(silence);
        stop.signal.removeEventListener("abort", end);
      }
      if (stop.signal.aborted) return;
      onState(false);
      await new Promise((wake) => setTimeout(wake, WAITS_MS[Math.min(tries, WAITS_MS.length - 1)] * (0.75 + Math.random() / 2)));
    }
  })();
  return () => stop.abort();
}

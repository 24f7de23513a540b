// Requests to the service. The key is sent as a header and never part of an address.
import { language, t } from "./i18n.js";
import { recallHere, rememberHere } from "./memory.js";

let key = recallHere("key");
let asking = null;
let ask = async () => { throw new Error("nobody asks for a key"); };

// code: that of the service, or NETWORK; message: for people, in their language; retryAfter: seconds.
export class ApiError extends Error {
  constructor(status, code, message, retryAfter = null, body = null) {
    super(message);
    Object.assign(this, { status, code, retryAfter, body });
  }

  // Whether the same request may succeed later.
  get passing() {
    return this.code === "NETWORK" || this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

export const hasKey = () => Boolean(key);

export function setKey(value) {
  key = value || undefined;
  rememberHere("key", key);
}

// The function that asks for a key; it gets whether one was refused, and resolves once setKey was called.
export function askWith(asker) {
  ask = asker;
}

export function headers(more = {}) {
  return { "Accept-Language": language(), ...(key ? { "X-API-Key": key } : {}), ...more };
}

// Ask for a key, once for all requests that were refused meanwhile. sent: the key of the refused request.
export async function renewKey(sent) {
  if (key !== sent && key) return;
  asking ??= ask(Boolean(sent)).finally(() => { asking = null; });
  await asking;
}

export const currentKey = () => key;

// Send a request and return the response. Throws ApiError unless it is 2xx. A 401 asks for a key and sends it again.
export async function send(path, { method = "GET", json, body, signal, more, keepalive } = {}) {
  const sent = key;
  let response;
  try {
    response = await fetch(path, {
      method,
      body: json === undefined ? body : JSON.stringify(json),
      headers: headers({ ...(json === undefined ? {} : { "Content-Type": "application/json" }), ...more }),
      signal,
      keepalive,
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    connected(false);
    throw new ApiError(0, "NETWORK", t("error.network"));
  }
  connected(true);
  if (response.status === 401) {
    await renewKey(sent);
    return send(path, { method, json, body, signal, more, keepalive });
  }
  if (!response.ok) throw await problem(response);
  return response;
}

export async function call(path, options) {
  const response = await send(path, options);
  return response.status === 204 || !response.headers.get("content-type")?.includes("json") ? null : response.json();
}

async function problem(response) {
  let body = null;
  try {
    body = await response.json();
  } catch {
    // a proxy's page
  }
  return problemOf(response.status, body, response.headers.get("retry-after"));
}

export function problemOf(status, body, retryAfter) {
  const message = typeof body?.detail === "string" ? body.detail : t("error.status", { status });
  return new ApiError(status, body?.code ?? `HTTP_${status}`, message, retryAfter === null ? null : Number(retryAfter), body);
}

let online = true;
function connected(now) {
  if (online === now) return;
  online = now;
  dispatchEvent(new Event("connection"));
}
export const isConnected = () => online && navigator.onLine !== false;

export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export const pause = (milliseconds, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, milliseconds);
  signal?.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
});
